"""
UDP ASSOCIATE (RFC 1928, section 7): datagrams both ways for as long as a client's connection lasts.

:mod:`~socksproxy.udp.association` decides which datagrams are passed on and which are dropped, and has
no socket of its own. Its destinations are in :mod:`~socksproxy.udp.targets`. Two modules give it sockets,
and one contract (``tests/udp``) holds for both: :mod:`~socksproxy.udp.sockets` in the relay engine, and
:mod:`~socksproxy.udp.transports` on Twisted's transports. :mod:`~socksproxy.udp.registry` has the
associations of one factory.
"""
