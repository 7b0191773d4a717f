"""
The admin sockets: what a server that runs tells, and what it can be told.

``answers`` is asked in each process that has sessions. ``control`` is what the API asks of the whole server:
a subclass knows one process, or a supervisor and its workers. ``site`` speaks HTTP, ``guard`` decides who
may do what, and ``api`` has the routes.
"""
