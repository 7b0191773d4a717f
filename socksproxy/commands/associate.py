"""
UDP ASSOCIATE: from a request to an association (RFC 1928, sections 4, 6 and 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import NameNotFound
from ..identity import Client
from ..negotiation import IWrapping
from ..net.names import canonical
from ..udp.association import Association
from ..udp.registry import Associations
from ..wire.words import UNSPECIFIED, Address


def associate(
    associations: Associations,
    client: Client,
    local: str | None,
    requested: Address,
    engine: Any,
    ended: Callable[[Association], None],
    wrapping: IWrapping | None = None,
) -> tuple[Association, Address]:
    """
    Begin an association for *client*.

    :param local: the literal address that its connection has reached; None: a Unix socket.
    :param requested: DST.ADDR and DST.PORT: where the client's datagrams will come from, if it knows.
        Nothing is ever sent there because of it.
    :param engine: the relay engine, or None.
    :param ended: called once, with the association, when it is over.
    :param wrapping: how the client's datagrams are encapsulated; None: they are not.
    :returns: the association, and BND.ADDR and BND.PORT.
    :raises SOCKSError: when there can be none.
    :raises OSError: when the system says so.
    """
    try:
        hint = canonical(requested)
    except NameNotFound:
        hint = UNSPECIFIED  # many clients fill the field with anything
    return associations.open(client, local, hint, engine, ended, wrapping)
