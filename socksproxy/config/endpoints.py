"""
The listeners that options describe, and what is wrong with one before it opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint

from ..errors import describe
from ..net.endpoints import BACKLOG, WrongSystemd, place_asked_for
from ..net.local import is_local
from ..net.names import is_localhost, literal
from ..net.resources import Resources
from ..net.special_addresses import is_loopback
from ..values.balancers import Balancers
from ..values.errors import ConfigError, Path
from ..values.pools import UpstreamPool
from ..values.upstreams import Upstream
from .listeners import named_listener
from .plan import Listener
from .words import POOLS, UPSTREAMS, OpenToAll

#: Why a listener that others can reach is not opened by itself.
OPEN_TO_ALL = "every client that reaches it can use the proxy without authentication"

#: What is wrong with a listener that others can reach, and that takes every PROXY header.
CLAIMABLE = "who reaches it can claim any address: name the balancers with --proxy-from"


def listener_on(reactor: Any, interface: str, port: int) -> Listener:
    """
    The listener on *interface*, an address, and *port*.

    :raises ConfigError: when *interface* is no address.
    """
    host = interface[1:-1] if interface.startswith("[") and interface.endswith("]") else interface
    if ":" not in host:
        return Listener(
            f"tcp:{host}:{port}", TCP4ServerEndpoint(reactor, port, backlog=BACKLOG, interface=host)
        )
    if literal(host.partition("%")[0]) is None:
        raise ConfigError("not an address", interface)
    return Listener(
        f"tcp6:[{host}]:{port}", TCP6ServerEndpoint(reactor, port, backlog=BACKLOG, interface=host)
    )


def listener_from(resources: Resources, number: int, text: str) -> Listener:
    """
    The listener that *text* describes.

    :param resources: makes the endpoint.
    :param number: of the listener among all.
    :raises ConfigError: when *text* describes no endpoint.
    """
    name, description = named_listener(text)
    try:
        return Listener(description, resources.endpoint(number, description), name)
    except OSError as problem:
        file = f": {problem.filename}" if problem.filename else ""
        raise ConfigError(f"{describe(problem)}{file}", description) from None
    except WrongSystemd as problem:
        raise ConfigError(f"not an endpoint that can open: {problem}", description) from None
    except Exception as problem:
        # Each kind of endpoint has its own parser, with its own exceptions.
        raise ConfigError(
            f"not an endpoint such as tcp:1080:interface=127.0.0.1 ({problem})", description
        ) from None


def is_local_only(listener: Listener) -> bool:
    """Whether only this machine reaches *listener*, or its endpoint does not tell before it opens."""
    place = place_asked_for(listener.endpoint)
    return place is None or place[0] == "localhost" or is_loopback(place[0])


def check_local(listener: Listener) -> None:
    """
    See that other machines cannot reach *listener*, as far as its endpoint tells.

    :raises OpenToAll: when they can.
    """
    if not is_local_only(listener):
        raise OpenToAll(
            f"{listener.description} is not on a loopback address, and {OPEN_TO_ALL}: "
            "listen on 127.0.0.1, [::1] or a Unix socket, add --auth, or --open"
        )


def is_claimable(listener: Listener, balancers: Balancers) -> bool:
    """Whether other machines reach *listener*, and it takes the PROXY headers of all of them."""
    return listener.balanced and not balancers.networks and not is_local_only(listener)


def loops(
    upstreams: Mapping[str, Upstream], pools: Mapping[str, UpstreamPool], listeners: Iterable[Listener]
) -> list[ConfigError]:
    """What is wrong with upstreams, also those in the files of *pools*, that are listeners of this server."""
    places = {place_asked_for(each.endpoint) for each in listeners}
    all_: list[tuple[Path, Upstream]] = [
        ((UPSTREAMS, name, "address"), upstream) for name, upstream in upstreams.items()
    ]
    for name, pool in pools.items():
        table = {} if pool.members_file is None else pool.members_file.table
        all_ += [((POOLS, name, "members-file"), upstream) for upstream in table.values()]
    found = []
    for path, upstream in all_:
        address = upstream.address
        if address is None:
            continue
        host = "127.0.0.1" if is_localhost(address.host) else address.host
        ours = {place[0] for place in places if place is not None and place[1] == address.port}
        wildcard = bool(ours & {"0.0.0.0", "::", ""}) and literal(host) is not None and is_local(host)
        if host in ours or wildcard:
            found.append(ConfigError(f"{address} is a listener of this server: a loop", path=path))
    return found
