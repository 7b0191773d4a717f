"""The server that is checked, and the targets on this machine that it is asked for."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import NamedTuple

from ..wire import password, socks4, socks5
from ..wire.words import Address, AddressType, Command, Method, Reply, Reply4, Request, Version
from .link import Link, ServerClosed, ServerSilent
from .outcome import Failed, NotPossible, NotServed, expect

#: The CONNECT, BIND and UDP ASSOCIATE of a client that says nothing of itself.
UNSPECIFIED4 = Address("0.0.0.0", 0, AddressType.IPV4)
_LOOPBACK6 = "::1"
#: Replies that say that a server does not do what it is asked for.
_NOT_SERVED = (Reply.COMMAND_NOT_SUPPORTED, Reply.ADDRESS_TYPE_NOT_SUPPORTED)


class Where(NamedTuple):
    """
    How the server is reached, and how it reaches this machine.

    :ivar host: the server's name or address.
    :ivar port: its port.
    :ivar login: a username and a password; None: the server asks for none.
    :ivar target: the address of this machine, as the server reaches it.
    :ivar name: a name that the server resolves to *target*; empty: there is none.
    :ivar timeout: seconds for each answer.
    :ivar patience: seconds that a server may wait for a silent client.
    """

    host: str
    port: int
    login: password.Credentials | None = None
    target: str = "127.0.0.1"
    name: str = "localhost"
    timeout: float = 3.0
    patience: float = 35.0


class TargetPort:
    """
    A port of this machine that waits for the server.

    :ivar port: its number.
    """

    def __init__(self, hosts: list[str], timeout: float) -> None:
        self._timeout = timeout
        self._sockets: list[socket.socket] = []
        self.port = 0
        for host in hosts:
            listening = socket.create_server((host, self.port), family=_family(host))
            self._sockets.append(listening)
            self.port = listening.getsockname()[1]

    def __enter__(self) -> TargetPort:
        return self

    def __exit__(self, *exception: object) -> None:
        for listening in self._sockets:
            listening.close()

    def accept(self) -> Link:
        """
        The next connection.

        :raises ServerSilent: when there is none in time.
        """
        ready, _, _ = select.select(self._sockets, [], [], self._timeout)
        if not ready:
            raise ServerSilent(f"no connection reached the target within {self._timeout:g} s")
        return Link(ready[0].accept()[0], self._timeout, "the server, at the target,")


class ProbedServer:
    """
    The server that is checked.

    :param where: how to reach it.
    """

    def __init__(self, where: Where) -> None:
        self.where = where
        self.timeout = where.timeout

    # Connections to the server.

    def connect(self, source: str = "") -> Link:
        """
        A connection to the server.

        :param source: the address that it comes from; empty: any.
        :raises Failed: when there is none.
        """
        where = self.where
        try:
            connection = socket.create_connection(
                (where.host, where.port), self.timeout, (source, 0) if source else None
            )
        except OSError as problem:
            raise Failed(f"no connection to the server: {problem.strerror or problem}") from None
        return Link(connection, self.timeout)

    def hello(self) -> bytes:
        """The greeting, with the method that the login needs."""
        method = Method.NO_AUTHENTICATION if self.where.login is None else Method.USERNAME_PASSWORD
        return socks5.build_greeting(bytes((method,)))

    def log_in(self, link: Link) -> None:
        """
        Read the server's choice of a method, and log in.

        :raises Failed: when the server refuses.
        """
        choice = link.read(socks5.parse_choice)
        login = self.where.login
        if choice == Method.NO_ACCEPTABLE:
            raise Failed("no acceptable method" if login else "no acceptable method: give a login")
        if login is None:
            expect(choice == Method.NO_AUTHENTICATION, f"the server chose method {choice:#04x}")
            return
        expect(choice == Method.USERNAME_PASSWORD, f"the server chose method {choice:#04x}")
        link.send(password.build_credentials(login))
        status = link.receive(2)[1]
        expect(status == password.SUCCESS, f"the login was refused with status {status}")

    def ready(self) -> Link:
        """A connection that waits for a request of SOCKS5."""
        link = self.connect()
        try:
            link.send(self.hello())
            self.log_in(link)
        except BaseException:
            link.socket.close()
            raise
        return link

    def ask(self, command: int, destination: Address) -> Link:
        """A connection with a request of SOCKS5, whose reply is not read yet."""
        link = self.ready()
        link.send(socks5.build_request(command, destination))
        return link

    def ask4(self, command: int, destination: Address, userid: bytes = b"probe") -> Link:
        """A connection with a request of SOCKS4, of SOCKS4a where *destination* is a name."""
        link = self.connect()
        link.send(socks4.build_request(Request(Version.SOCKS4, command, destination, userid)))
        return link

    # Targets.

    def listen(self) -> TargetPort:
        """A target at the target's address."""
        return TargetPort([self.where.target], self.timeout)

    def listen6(self) -> TargetPort:
        """
        A target at an IPv6 address.

        :raises NotPossible: where there is none.
        """
        host = self.target6()
        return TargetPort([host], self.timeout)

    def listen_by_name(self) -> TargetPort:
        """
        A target at every address of the target's name.

        :raises NotPossible: where there is no name.
        """
        self.name()
        hosts = [self.where.target]
        if self._loopback() and _can_bind(_LOOPBACK6):
            hosts.append(_LOOPBACK6)
        return TargetPort(hosts, self.timeout)

    def target6(self) -> str:
        """
        The target's IPv6 address.

        :raises NotPossible: where there is none.
        """
        if ip_address(self.where.target).version == 6:
            return self.where.target
        if not self._loopback() or not _can_bind(_LOOPBACK6):
            raise NotPossible("no IPv6 address of this machine that the server can reach")
        return _LOOPBACK6

    def name(self) -> str:
        """
        The target's name.

        :raises NotPossible: where there is none.
        """
        if not self.where.name:
            raise NotPossible("no name for the target: --target-name gives one")
        return self.where.name

    def at(self, port: int) -> Address:
        """*port* at the target's address."""
        return Address.of(self.where.target, port)

    def named(self, port: int) -> Address:
        """*port* at the target's name."""
        return Address(self.name(), port, AddressType.DOMAIN_NAME)

    def closed_port(self) -> int:
        """A port of the target where nothing listens."""
        with self.listen() as target:
            return target.port

    def another_source(self) -> str:
        """
        An address of this machine that is not the target's.

        :raises NotPossible: where there is none.
        """
        if not self._loopback() or not _can_bind("127.0.0.2"):
            raise NotPossible("no second address of this machine that reaches the server")
        return "127.0.0.2"

    def _loopback(self) -> bool:
        return ip_address(self.where.target).is_loopback

    # Connections through the server.

    @contextmanager
    def joined(self) -> Iterator[tuple[Link, Link]]:
        """
        A connection through the server by SOCKS5: the client's end and the target's end.

        :raises Failed: when the server refuses.
        """
        with self.listen() as listening, self.ask(Command.CONNECT, self.at(listening.port)) as client:
            granted(client)
            with listening.accept() as server:
                yield client, server


def granted(link: Link) -> Address:
    """
    Read a reply of SOCKS5 that grants.

    :returns: BND.ADDR and BND.PORT.
    :raises Failed: when the reply refuses.
    """
    reply = link.read(socks5.parse_reply)
    expect(reply.reply == Reply.SUCCEEDED, f"the reply was {reply.reply}")
    return reply.address


def granted_where_served(link: Link) -> Address:
    """
    The same, for the first request of a kind.

    :raises NotServed: when the server says that it does not do it, or closes.
    """
    try:
        reply = link.read(socks5.parse_reply)
    except ServerClosed:
        raise NotServed("the server closed the connection") from None
    if reply.reply in _NOT_SERVED:
        raise NotServed(f"the reply was {reply.reply}")
    expect(reply.reply == Reply.SUCCEEDED, f"the reply was {reply.reply}")
    return reply.address


def granted4(link: Link) -> Address:
    """Read a reply of SOCKS4 that grants; otherwise as :func:`granted`."""
    reply = link.read(socks4.parse_reply)
    expect(reply.reply == Reply4.GRANTED, f"the reply was {reply.reply}")
    return reply.address


def granted4_where_served(link: Link) -> Address:
    """
    The same, for the first request of a kind.

    :raises NotServed: when the server refuses, closes, or answers as servers of SOCKS5 answer.
    """
    try:
        first = link.receive(1)
    except (ServerClosed, ServerSilent) as problem:
        raise NotServed(str(problem)) from None
    if first[0] == Version.SOCKS5:
        raise NotServed("the server answered with SOCKS5")
    reply = link.read(socks4.parse_reply, first)
    if reply.reply != Reply4.GRANTED:
        raise NotServed(f"the reply was {reply.reply}")
    return reply.address


def echoed(client: Link, target: Link) -> None:
    """
    Send some bytes both ways.

    :raises Failed: when they do not arrive as they were sent.
    """
    for sender, receiver, text in ((client, target, b"to the target"), (target, client, b"to the client")):
        sender.send(text)
        data = receiver.receive(len(text))
        expect(data == text, f"other bytes arrived than were sent: {data!r} for {text!r}")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET


def _can_bind(host: str) -> bool:
    with suppress(OSError), socket.socket(_family(host)) as trying:
        trying.bind((host, 0))
        return True
    return False
