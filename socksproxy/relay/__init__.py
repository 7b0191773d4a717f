"""
The relay: bytes both ways between two connected ends until both directions are closed.

There are two, and one contract (``tests/relay``) holds for both:
:mod:`~socksproxy.relay.engine` moves bytes between plain sockets with an epoll of
its own; :mod:`~socksproxy.relay.transports` works with any of Twisted's transports.
"""
