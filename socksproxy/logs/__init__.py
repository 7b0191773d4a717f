"""What the server writes down: the access log, and its own log."""
