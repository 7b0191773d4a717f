"""A SOCKS proxy with a way out of its own: ``python own_route.py [ENDPOINT [HOST:PORT ...]]``."""

import sys
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from zope.interface import implementer

from socksproxy import Address, Command, SOCKSError, SOCKSFactory
from socksproxy.routes import ICommandsRoute
from socksproxy.values import Upstream, UpstreamPool

#: Where to by which way, and None for not at all: the countries of your customers, for example.
WAYS = {"at home": "direct", "abroad": "exits", "forbidden": None}


def country_of(host: str) -> str:
    """The place of an address. A database such as geoip2's knows more of them."""
    if host == "127.0.0.3":
        return "forbidden"
    return "at home" if host == "127.0.0.1" else "abroad"


@implementer(ICommandsRoute)  # IRoute, with dial() alone, is enough for CONNECT
class ByCountry:
    """Leaves by the way of the destination's country; all datagrams leave by the pool."""

    resolves = False  # the server looks names up, and asks its policy about the addresses
    via = "by country"
    factory: SOCKSFactory

    def dial(self, address: Address, engine: bool, trail: Any = None) -> Any:
        way = self.way_to(address)
        return refusal() if way is None else way.dial(address, engine, trail)

    def carries(self, command: Command) -> bool:
        return command is not Command.RESOLVE_PTR

    def associate(self, trail: Any) -> Any:  # where to is not known yet
        return self.factory.way("exits").associate(trail)

    def bind(self, peer: Address, engine: bool, trail: Any, listen: Any) -> Any:
        way = self.way_to(peer)
        return refusal() if way is None else way.bind(peer, engine, trail, listen)

    def resolve(self, command: Command, destination: Address, trail: Any) -> Any:
        raise NotImplementedError("the server looks names up, because resolves is False")

    def way_to(self, address: Address) -> Any:
        way = WAYS[country_of(address.host)]
        return None if way is None else self.factory.way(way)


def refusal() -> Any:
    return fail(SOCKSError("no connection leaves for this country"))


def make_factory(reactor: Any, exits: list[str], **options: Any) -> SOCKSFactory:
    """A factory with a pool of the SOCKS5 proxies *exits*, each HOST:PORT."""
    upstreams = {}
    for number, each in enumerate(exits):
        host, _, port = each.rpartition(":")
        upstreams[f"exit{number}"] = Upstream(type="socks5", address=Address.of(host, int(port)))
    pool, route = UpstreamPool(members=list(upstreams), choose="random"), ByCountry()
    route.factory = SOCKSFactory(
        reactor,
        upstreams=upstreams,
        pools={"exits": pool},
        routes={"country": route},
        via="country",
        **options,
    )
    return route.factory


async def main(reactor: Any, listen: str = "tcp:1080:interface=127.0.0.1", *exits: str) -> None:
    factory = make_factory(reactor, list(exits) or ["192.0.2.1:1080"])
    port = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred[None]()


if __name__ == "__main__":
    react(main, sys.argv[1:])
