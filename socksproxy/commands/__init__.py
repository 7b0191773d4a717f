"""
What the server does for a request: one module a command.
"""
