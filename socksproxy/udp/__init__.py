"""
UDP ASSOCIATE (RFC 1928, section 7): datagrams both ways for as long as a client's connection lasts.

:mod:`~socksproxy.udp.association` is what is passed on and what is dropped, with
no socket of its own. There are two that give it sockets, and one contract
(``tests/udp``) holds for both: :mod:`~socksproxy.udp.sockets` in the relay engine, and
:mod:`~socksproxy.udp.transports` on Twisted's. :mod:`~socksproxy.udp.registry`
is what those of one factory have in common.
"""
