"""RESOLVE and RESOLVE_PTR, Tor's extension."""

from __future__ import annotations

from ipaddress import ip_address

from ...wire.words import Address, AddressType, Command
from ..check import Checks
from ..outcome import expect
from ..subject import ProbedServer, granted_where_served

CHECKS = Checks()


@CHECKS.add(
    "resolve.name",
    "RESOLVE tells an address of a name",
    "torspec, socks-extensions",
    needs="socks5.connect-name",
)
def _resolve(subject: ProbedServer) -> str:
    with subject.ask(Command.RESOLVE, subject.named(0)) as client:
        found = granted_where_served(client)
        expect(found.type is not AddressType.DOMAIN_NAME, f"the answer was the name {found.host!r}")
        expect(not ip_address(found.host).is_unspecified, f"the answer was {found.host}")
        return found.host


@CHECKS.add(
    "resolve.address",
    "RESOLVE_PTR tells the name of an address",
    "torspec, socks-extensions",
    needs="socks5.connect-name",
)
def _resolve_ptr(subject: ProbedServer) -> str:
    with subject.ask(Command.RESOLVE_PTR, Address.of(subject.where.target, 0)) as client:
        found = granted_where_served(client)
        expect(found.type is AddressType.DOMAIN_NAME and bool(found.host), f"the answer was {found.host!r}")
        return found.host
