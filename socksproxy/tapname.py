"""
How ``twistd socks`` comes to be this server and not Twisted's own of that name.

Twisted ships a plugin ``socks`` (SOCKS4 only). ``twistd`` and ``twist`` sort
the plugins by their names and take the first that equals what was asked for;
they also keep them in dictionaries by name. This module imports nothing,
because it is read whenever ``twistd`` lists its plugins.
"""

from __future__ import annotations


class Tapname(str):
    """
    A name that goes before the same name of somebody else.

    It equals the plain text, so that it is found by it; it sorts before an
    equal plain text, so that it is found first; and it has another hash, so
    that a dictionary keeps it beside the plain one instead of in its place.
    """

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__le__(self, other)

    def __hash__(self) -> int:
        return hash((Tapname.__name__, str(self)))
