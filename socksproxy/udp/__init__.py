"""
UDP ASSOCIATE (RFC 1928, section 7): datagrams both ways for as long as a client's connection lasts.

:mod:`~socksproxy.udp.association` decides which datagrams are passed on and which are dropped.
:mod:`~socksproxy.udp.targets` keeps the destinations of an association. Two modules have its sockets, and one
contract (``tests/udp``) holds for both: :mod:`~socksproxy.udp.sockets` in the relay engine, and
:mod:`~socksproxy.udp.transports` on Twisted's transports. :mod:`~socksproxy.udp.registry` keeps the
associations of one factory.
"""
