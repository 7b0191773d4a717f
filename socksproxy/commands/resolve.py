"""
RESOLVE and RESOLVE_PTR: a name's address, an address's name (Tor's extension; torspec, socks-extensions).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from ..errors import CommandNotSupported, NameNotFound, NotAllowed, UpstreamFailed
from ..events import Cause
from ..identity import Client
from ..logs.printable import line_of_record
from ..net.names import canonical
from ..policy.asking import DestinationCheck, ask, ask_address, permitted_addresses
from ..wire.words import Address, AddressType, Command, Request, Version
from .service import Owner, Service

#: Has the way out look up a name or an address; None: the way out is direct.
LookUp = Callable[[Command, Address], "Deferred[Address] | None"]


def _directly(command: Command, destination: Address) -> None:
    return None


@inlineCallbacks
def resolve(
    means: DestinationCheck,
    client: Client,
    request: Request,
    resolved: Callable[[], None],
    look_up: LookUp = _directly,
) -> Generator[Any, Any, Address]:
    """
    An address of the name that *client* asks for, with port 0: the first IPv4 address that the policy
    permits, or else the first address that it permits. A literal address is its own answer.

    torsocks expects IPv4 whatever it asks for, and a SOCKS4 client can be told nothing else.

    :param resolved: called when a name has been looked up.
    :param look_up: has a proxy look the name up, where the way out takes names.
    :raises UpstreamFailed: (by the Deferred) when the way out fails.
    :raises NameNotFound: (by the Deferred) when there is no address that the client can be told.
    :raises NotAllowed: (by the Deferred) when the policy denies the name or all of its addresses.
    """
    destination = canonical(request.destination, means.names.defines)
    answer = ask(means.policy, client, Command.RESOLVE, destination)
    addresses: list[Address] = yield permitted_addresses(
        means, client, Command.RESOLVE, destination, answer, resolved
    )
    name = addresses[0]
    if name.type is AddressType.DOMAIN_NAME:
        answer = yield look_up(Command.RESOLVE, name)
        resolved()
        if answer.type is AddressType.DOMAIN_NAME:
            raise UpstreamFailed(f"the upstream answers RESOLVE with a name: {answer.host!r}")
        if not (yield ask_address(means.policy, client, Command.RESOLVE, canonical(answer), name.host)):
            raise NotAllowed("the policy denies every address of the name")
        addresses = [answer]
    ipv4 = [address for address in addresses if address.type is AddressType.IPV4]
    if request.version is Version.SOCKS4 and not ipv4:
        raise NameNotFound("the name has no IPv4 address, and SOCKS4 no form for another")
    return (ipv4 or addresses)[0]._replace(port=0)


@inlineCallbacks
def resolve_pointer(
    means: DestinationCheck,
    client: Client,
    request: Request,
    resolved: Callable[[], None],
    look_up: LookUp = _directly,
) -> Generator[Any, Any, Address]:
    """
    The name of the address that *client* asks for, with port 0.

    :param resolved: called when it has been looked up.
    :param look_up: has a proxy look the address up, where the way out leads through proxies.
    :raises NameNotFound: (by the Deferred) when there is none, or what was asked for is no address.
    :raises NotAllowed: (by the Deferred) when the policy denies the address.
    """
    destination = canonical(request.destination)
    if destination.type is AddressType.DOMAIN_NAME:
        raise NameNotFound("only an address can be looked up in reverse")
    if not (yield ask(means.policy, client, Command.RESOLVE_PTR, destination)):
        raise NotAllowed("the policy denies it")
    if means.leaves_as_name is not None:
        means.leaves_as_name(Command.RESOLVE_PTR, destination)
    asked = look_up(Command.RESOLVE_PTR, destination)
    if asked is None:
        name: str = yield means.names.reverse(destination.host, client.share)
    else:
        answer: Address = yield asked
        if answer.type is not AddressType.DOMAIN_NAME:
            raise UpstreamFailed(f"the upstream answers RESOLVE_PTR with an address: {answer.host}")
        if not answer.host:
            raise UpstreamFailed("the upstream answers RESOLVE_PTR with an empty name")
        name = answer.host
    resolved()
    return Address(name, 0, AddressType.DOMAIN_NAME)


class Resolve(Service):
    """The service of RESOLVE and RESOLVE_PTR."""

    __slots__ = ("announced",)

    def __init__(self, session: Owner) -> None:
        super().__init__(session)
        self.announced = None

    def start(self) -> None:
        """See :meth:`~socksproxy.commands.service.Service.start`."""
        session = self.session
        if not session.context.resolve_commands:
            raise CommandNotSupported("command not supported")
        begin = resolve if session.request.command == Command.RESOLVE else resolve_pointer
        answer = begin(session.check, session.client, session.request, self.name_resolved, session.look_up)
        session.wait(answer, self._answered)

    def _answered(self, answer: Address) -> None:
        """There is an answer, and the conversation is over with it."""
        session = self.session
        if session.stale:
            known = [answer] if answer.type is not AddressType.DOMAIN_NAME else []
            session.confirm(known, answer, self._answered)
            return
        self.announced = line_of_record(answer.host)
        session.grant(answer)
        session.finish(Cause.ANSWERED.value)
