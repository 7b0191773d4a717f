"""What can tell whether a user is who the client says: one module for each type of ``--auth``."""
