"""
What ``twistd`` and ``twist`` can start.

Every ``twistd`` command reads this file, whatever it starts. So it imports
nothing of ours: that would cost each of them 60 ms, and a fault in ours would
quietly make ``twistd socks`` Twisted's own server again.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker


class Tapname(str):
    """
    A name that goes before the same name of somebody else.

    Twisted ships a plugin ``socks`` (SOCKS4 only). ``twistd`` and ``twist``
    sort the plugins by their names and take the first that equals what was
    asked for, and they keep them in dictionaries by name. This name equals the
    plain text, so that it is found by it; it sorts before an equal plain text,
    so that it is found first; and it has another hash, so that a dictionary
    keeps it beside the plain one instead of in its place.
    """

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__le__(self, other)

    def __hash__(self) -> int:
        return hash((Tapname.__name__, str(self)))


socks = ServiceMaker(
    "socksproxy",
    "socksproxy.app",
    "A SOCKS4, SOCKS4a and SOCKS5 proxy (socksproxy).",
    Tapname("socks"),
)

socksproxy = ServiceMaker(
    "socksproxy",
    "socksproxy.app",
    "A SOCKS4, SOCKS4a and SOCKS5 proxy.",
    "socksproxy",
)
