"""UDP ASSOCIATE."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import NamedTuple

from ...wire.datagram import LAST_FRAGMENT, build_header, parse_datagram
from ...wire.socks5 import build_request
from ...wire.words import Address, AddressType, Command, ProtocolError
from ..check import Checks
from ..link import Link
from ..outcome import Failed, NotPossible, expect
from ..subject import UNSPECIFIED4, ProbedServer, granted, granted_where_served

CHECKS = Checks()

#: Seconds in which a datagram that should not come would have come.
_QUIET = 0.4
#: Datagrams are sent again, because a network may lose them.
_TRIES = 3
#: The largest payload of a datagram over IPv4; the header of RFC 1928 with an IPv4 address takes 10 of it.
_LARGEST = 65507 - 10
_SIZES = (0, 1, 512, 1472, 9000, _LARGEST)


class ProbeAssociation(NamedTuple):
    """
    An association, and the sockets at both ends.

    :ivar control: its TCP connection.
    :ivar relay: where the client's datagrams go.
    :ivar client: the client's socket.
    :ivar target: the socket that the server reaches.
    """

    control: Link
    relay: tuple[str, int]
    client: socket.socket
    target: socket.socket

    def send(self, payload: bytes, destination: Address | None = None, fragment: int = 0) -> None:
        """Send *payload* to *destination*; None: to the target."""
        header = build_header(destination or _address_of(self.target), fragment)
        self.client.sendto(header + payload, self.relay)

    def pass_on(self, payload: bytes, destination: Address | None = None) -> tuple[str, int]:
        """
        Send *payload* until the target has it.

        :returns: where it comes from.
        :raises Failed: when it does not come, or other bytes come.
        """
        for _ in range(_TRIES):
            self.send(payload, destination)
            found = _received(self.target, self.control.timeout / _TRIES)
            if found is not None:
                expect(found[0] == payload, f"{_shown(found[0])} reached the target for {_shown(payload)}")
                return found[1]
        raise Failed(f"a datagram of {len(payload)} bytes did not reach the target")

    def answer(self, payload: bytes, source: tuple[str, int]) -> Address:
        """
        Send *payload* from the target until the client has it.

        :param source: where the server's datagrams came from.
        :returns: the source that the header names.
        """
        for _ in range(_TRIES):
            self.target.sendto(payload, source)
            found = _received(self.client, self.control.timeout / _TRIES)
            if found is not None:
                return _unwrapped(found[0], payload)
        raise Failed(f"an answer of {len(payload)} bytes did not reach the client")


@contextmanager
def associated(
    subject: ProbedServer, host: str | None = None, *, first: bool = False, announced: bool = False
) -> Iterator[ProbeAssociation]:
    """
    An association whose target is at *host*.

    :param host: None: the target's address.
    :param first: whether it is the first: the server may not do it.
    :param announced: whether DST.ADDR and DST.PORT are the client's.
    :raises Failed: when the server refuses.
    """
    there = host or subject.where.target
    with subject.ready() as control:
        here = control.socket.getsockname()[0]
        with _bound(here) as client, _bound(there) as target:
            asked = _address_of(client) if announced else UNSPECIFIED4
            control.send(build_request(Command.UDP_ASSOCIATE, asked))
            bound = granted_where_served(control) if first else granted(control)
            expect(bound.port != 0, "BND.PORT was 0")
            yield ProbeAssociation(control, _relay(bound, control), client, target)


@CHECKS.add(
    "udp.associate",
    "UDP ASSOCIATE is served: a datagram reaches an IPv4 address, and the answer comes back with its source",
    "RFC 1928, 7",
    needs="socks5.connect",
)
def _associate(subject: ProbedServer) -> None:
    with associated(subject, first=True) as association:
        _round_trip(association)


@CHECKS.add(
    "udp.bound-address",
    "BND.ADDR is an address to which datagrams can go",
    "RFC 1928, 6",
    needs="udp.associate",
)
def _bound_address(subject: ProbedServer) -> None:
    with subject.ask(Command.UDP_ASSOCIATE, UNSPECIFIED4) as control:
        bound = granted(control)
        expect(bound.type is not AddressType.DOMAIN_NAME, f"BND.ADDR was the name {bound.host!r}")
        expect(not ip_address(bound.host).is_unspecified, f"BND.ADDR was {bound.host}")


@CHECKS.add(
    "udp.announced",
    "a client that names its own address and port is served",
    "RFC 1928, 6",
    needs="udp.associate",
)
def _announced(subject: ProbedServer) -> None:
    with associated(subject, announced=True) as association:
        _round_trip(association)


@CHECKS.add("udp.ipv6", "a datagram reaches an IPv6 address", "RFC 1928, 7", needs="udp.associate")
def _ipv6(subject: ProbedServer) -> None:
    with associated(subject, subject.target6()) as association:
        _round_trip(association)


@CHECKS.add("udp.name", "a datagram reaches a name", "RFC 1928, 7", needs="udp.associate")
def _name(subject: ProbedServer) -> None:
    with associated(subject) as association:
        port = association.target.getsockname()[1]
        source = association.pass_on(b"by name", subject.named(port))
        association.answer(b"an answer", source)


@CHECKS.add(
    "udp.several-destinations",
    "one association reaches several destinations, and each answer has its own source",
    "RFC 1928, 7",
    needs="udp.associate",
)
def _several(subject: ProbedServer) -> None:
    with associated(subject) as association, _bound(subject.where.target) as other:
        _round_trip(association)
        _round_trip(association._replace(target=other))
        _round_trip(association)


@CHECKS.add(
    "udp.after-refused",
    "a destination that refuses does not end the association",
    "RFC 1928, 7: an association ends with its TCP connection",
    needs="udp.associate",
)
def _after_refused(subject: ProbedServer) -> None:
    with associated(subject) as association:
        with _bound(subject.where.target) as gone:
            nothing = _address_of(gone)
        association.send(b"to nothing", nothing)
        time.sleep(0.05)
        _round_trip(association)


@CHECKS.add(
    "udp.malformed",
    "a datagram shorter than its header does not end the association",
    "RFC 1928, 7",
    needs="udp.associate",
)
def _malformed(subject: ProbedServer) -> None:
    with associated(subject) as association:
        for data in (
            b"",
            b"\0",
            b"\0\0\0",
            b"\0\0\0\x01\x7f",
            b"\0\0\0\x03\xffname",
            b"\0\0\0\x09" + bytes(20),
        ):
            association.client.sendto(data, association.relay)
        _round_trip(association)


@CHECKS.add(
    "udp.sizes",
    f"datagrams of 0 to {_LARGEST} bytes pass whole, both ways",
    "RFC 768: a length of 16 bits",
    needs="udp.associate",
)
def _sizes(subject: ProbedServer) -> None:
    with associated(subject) as association:
        source = association.pass_on(b"first")
        for size in _SIZES:
            payload = bytes(range(256)) * (size // 256 + 1)
            association.pass_on(payload[:size])
            association.answer(payload[:size], source)


@CHECKS.add(
    "udp.fragments",
    "a fragment is dropped or put together with the others, and never passed on as a whole datagram",
    "RFC 1928, 7: FRAG",
    needs="udp.associate",
)
def _fragments(subject: ProbedServer) -> str:
    with associated(subject) as association:
        source = association.pass_on(b"first")
        association.send(b"one ", fragment=1)
        association.send(b"datagram", fragment=LAST_FRAGMENT | 2)
        found = _received(association.target, _QUIET)
        if found is None:
            association.answer(b"still there", source)
            return "dropped"
        expect(found[0] == b"one datagram", f"{found[0]!r} reached the target")
        return "put together"


@CHECKS.add(
    "udp.other-source",
    "a datagram from another address than the client's is dropped",
    "RFC 1928, 7: it MUST drop them",
    needs="udp.associate",
)
def _other_source(subject: ProbedServer) -> None:
    with associated(subject) as association, stranger_to(association, subject) as stranger:
        _round_trip(association)
        stranger.sendto(build_header(_address_of(association.target)) + b"from a stranger", association.relay)
        expect(_received(association.target, _QUIET) is None, "it reached the target")
        _round_trip(association)


@CHECKS.add(
    "udp.first-source",
    "a stranger that sends before the client does not take the association over",
    "RFC 1928, 7: it MUST drop them",
    needs="udp.associate",
)
def _first_source(subject: ProbedServer) -> None:
    with associated(subject) as association, stranger_to(association, subject) as stranger:
        stranger.sendto(build_header(_address_of(association.target)) + b"from a stranger", association.relay)
        expect(_received(association.target, _QUIET) is None, "its datagram reached the target")
        _round_trip(association)


@CHECKS.add(
    "udp.other-port",
    "an answer goes to the port that asked, also after a datagram from another port of the same address",
    "RFC 1928, 6 and 7: the client names its port",
    needs="udp.announced",
)
def _other_port(subject: ProbedServer) -> None:
    with associated(subject, announced=True) as association:
        source = association.pass_on(b"first")
        with _bound(association.client.getsockname()[0]) as stranger:
            stranger.sendto(
                build_header(_address_of(association.target)) + b"another port", association.relay
            )
            _received(association.target, _QUIET)
            association.answer(b"for the client", source)


@CHECKS.add(
    "udp.ends",
    "the association ends with its TCP connection",
    "RFC 1928, 7",
    needs="udp.associate",
)
def _ends(subject: ProbedServer) -> None:
    with associated(subject) as association:
        association.pass_on(b"first")
        association.control.socket.close()
        until = time.monotonic() + subject.timeout
        while time.monotonic() < until:
            association.send(b"after the end")
            if _received(association.target, _QUIET) is None:
                return
        raise Failed(f"datagrams passed for {subject.timeout:g} s more")


def _round_trip(association: ProbeAssociation) -> None:
    source = association.pass_on(b"to the target")
    told = association.answer(b"to the client", source)
    target = _address_of(association.target)
    expect(told == target, f"the header of the answer names {told}; it came from {target}")


def _relay(bound: Address, control: Link) -> tuple[str, int]:
    """Where datagrams go. Servers that tell zeros mean the address that the client has reached."""
    unspecified = bound.type is not AddressType.DOMAIN_NAME and ip_address(bound.host).is_unspecified
    return (control.socket.getpeername()[0] if unspecified else bound.host), bound.port


def stranger_to(association: ProbeAssociation, subject: ProbedServer) -> socket.socket:
    """
    A socket that reaches the relay of *association* from another address than the client's.

    :raises NotPossible: where this machine has none: IPv6 has one loopback address alone.
    """
    relay = ip_address(association.relay[0])
    if relay.version == 6 or not relay.is_loopback:
        raise NotPossible("no second address of this machine that reaches the server")
    return _bound(subject.another_source())


def _bound(host: str) -> socket.socket:
    found = socket.socket(
        socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET, socket.SOCK_DGRAM
    )
    found.bind((host, 0))
    return found


def _address_of(bound: socket.socket) -> Address:
    return Address.of(*bound.getsockname()[:2])


def _received(where: socket.socket, timeout: float) -> tuple[bytes, tuple[str, int]] | None:
    where.settimeout(timeout)
    try:
        data, source = where.recvfrom(65536)
    except OSError:
        return None
    return data, source[:2]


def _unwrapped(data: bytes, payload: bytes) -> Address:
    try:
        header, at = parse_datagram(data)
    except ProtocolError as problem:
        raise Failed(f"the client got {data[:16].hex(' ')}: {problem}") from None
    expect(header.fragment == 0, f"FRAG of the answer was {header.fragment}")
    expect(data[at:] == payload, f"{_shown(data[at:])} reached the client for {_shown(payload)}")
    return header.address


def _shown(payload: bytes) -> str:
    return repr(payload) if len(payload) <= 16 else f"{len(payload)} bytes"
