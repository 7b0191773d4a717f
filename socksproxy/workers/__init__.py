"""
One proxy in several processes: a supervisor, and workers that it starts, watches and replaces.

The supervisor opens the listeners and serves no client. The workers share its
listening sockets, so that a client that waits is accepted by whichever worker
has time, and none waits for a worker that has died.
"""
