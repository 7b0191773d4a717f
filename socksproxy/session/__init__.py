"""One client's session, and what the sessions of a factory share."""
