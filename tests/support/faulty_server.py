"""
A small SOCKS server with one fault, for the tests of ``socksproxy probe``.

Without a fault it does everything rightly. A fault has the id of the check that has to find it. The server is
written without the code of the product beyond the wire format, and with threads: a thread reads from the top.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from types import TracebackType

from socksproxy.wire import datagram, socks4, socks5
from socksproxy.wire.words import UNSPECIFIED, Address, AddressType, Command, Reply, Reply4, Request, Version

#: Seconds that the server waits for a silent client.
PATIENCE = 0.4
USER, PASSWORD = b"user", b"password"
_NONE, _LOGIN, _REFUSED = 0, 2, 0xFF


class _Over(Exception):
    """The connection has ended, or has been answered."""


class FaultyServer:
    """
    The server, while the ``with`` block runs.

    :param fault: the id of the check that should fail; empty: none.
    :param login: whether it wants the login ``USER`` and ``PASSWORD``.
    """

    def __init__(self, fault: str = "", login: bool = False) -> None:
        self._fault = fault
        self._login = login
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> FaultyServer:
        self._thread(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _thread(self, run: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        thread.start()
        return thread

    def _has(self, fault: str) -> bool:
        return self._fault == fault

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                self._open.append(client)
                self._thread(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(_Over, OSError, ValueError), client:
            client.settimeout(None if self._has("timeout.silent") else PATIENCE)
            first = client.recv(1, socket.MSG_PEEK)
            if first == bytes((Version.SOCKS5,)):
                self._socks5(client)
            elif first == bytes((Version.SOCKS4,)):
                self._socks4(client)
            elif first == b"G":
                _take(client, 4)
                self._http(client)
            else:
                _take(client, 4)
                if self._has("port.unknown-version"):
                    client.sendall(b"\x05\x00")

    def _http(self, client: socket.socket) -> None:
        if self._has("port.http"):
            client.settimeout(None)
            while client.recv(4096):
                pass
        _end(client, b"HTTP/1.0 501 Not an HTTP proxy\r\n\r\n")

    # SOCKS5.

    def _socks5(self, client: socket.socket) -> None:
        self._greet(client)
        if self._has("timeout.request"):
            client.settimeout(None)
        version, command, _, kind = _take(client, 4)
        if self._has("socks5.segments") and not _more(client):
            raise _Over
        destination = self._destination(client, kind)
        self._do(client, Request(Version(version), command, destination))

    def _greet(self, client: socket.socket) -> None:
        if self._has("timeout.greeting"):
            client.settimeout(None)
        methods = self._methods(client)
        wanted = _LOGIN if self._login else _NONE
        if wanted not in methods and not self._has("login.required"):
            if self._has("socks5.no-methods") and not methods:
                wanted = _NONE
            elif self._has("socks5.no-acceptable-method"):
                wanted = methods[0]
            else:
                _end(client, bytes((5, _REFUSED)))
        if self._has("socks5.greeting"):
            wanted = 1
        elif self._has("socks5.several-methods") and len(methods) > 1:
            wanted = methods[0]
        elif self._has("login.required") and _NONE in methods:
            wanted = _NONE
        client.sendall(bytes((5, wanted)))
        if wanted == _LOGIN:
            self._log_in(client)

    def _methods(self, client: socket.socket) -> bytes:
        if self._has("timeout.trickle"):
            client.settimeout(10 * PATIENCE)  # which each byte begins anew
        return _take(client, _take(client, 2)[1])

    def _log_in(self, client: socket.socket) -> None:
        if self._has("login.skipped") and client.recv(1, socket.MSG_PEEK) == b"\x05":
            return
        version, length = _take(client, 2)
        if version != 1:
            raise _Over
        user = _take(client, length)
        password = _take(client, _take(client, 1)[0])
        right = (user, password) == (USER, PASSWORD) or self._has("login.wrong")
        client.sendall(bytes((5 if self._has("login.status") else 1, not right)))
        if not right:
            raise _Over

    def _destination(self, client: socket.socket, kind: int) -> Address:
        sizes = {AddressType.IPV4: 4, AddressType.IPV6: 16}
        if kind == AddressType.DOMAIN_NAME:
            size = _take(client, 1)[0]
            if not size:
                _take(client, 2)
                if self._has("socks5.empty-name"):
                    _end(client, socks5.build_reply(Reply.SUCCEEDED, UNSPECIFIED))
                _end(client, socks5.build_reply(Reply.HOST_UNREACHABLE, UNSPECIFIED))
            host = _take(client, size).decode()
        elif kind in sizes:
            packed = _take(client, sizes[AddressType(kind)])
            host = str(ip_address(packed))
        else:
            if self._has("socks5.unknown-address-type"):
                raise _Over
            _end(client, socks5.build_reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED, UNSPECIFIED))
        return Address(host, struct.unpack("!H", _take(client, 2))[0], AddressType(kind))

    # SOCKS4.

    def _socks4(self, client: socket.socket) -> None:
        if self._has("socks4.connect"):
            _take(client, 8)
            _end(client, b"\x04garbage")
        data = b""
        while (parsed := socks4.parse_request(data)) is None:
            data += _take(client, 1)
            if self._has("socks4.segments") and not _more(client):
                raise _Over
        request = parsed[0]
        if self._has("socks4.userid-empty") and not request.userid:
            self._refuse(client, request, Reply.GENERAL_FAILURE)
        if self._has("socks4a.connect") and request.destination.type is AddressType.DOMAIN_NAME:
            request = request._replace(destination=request.destination._replace(host="127.0.0.77"))
        self._do(client, request)

    # Commands.

    def _do(self, client: socket.socket, request: Request) -> None:
        client.settimeout(None)
        if self._has(f"socks{request.version}.pipelined") and _more(client):
            client.recv(65536)
        commands: dict[int, Callable[[socket.socket, Request], None]] = {
            Command.CONNECT: self._connect,
            Command.BIND: self._bind,
        }
        if request.version == Version.SOCKS5:
            commands[Command.UDP_ASSOCIATE] = self._associate
            commands[Command.RESOLVE] = commands[Command.RESOLVE_PTR] = self._resolve
        found = commands.get(request.command)
        if found is None:
            if self._has(f"socks{request.version}.unknown-command"):
                raise _Over
            self._refuse(client, request, Reply.COMMAND_NOT_SUPPORTED)
        else:
            found(client, request)

    def _grant(self, client: socket.socket, request: Request, bound: Address) -> None:
        if request.version == Version.SOCKS5:
            client.sendall(socks5.build_reply(Reply.SUCCEEDED, bound))
            return
        reply = socks4.build_reply(Reply4.GRANTED, bound)
        client.sendall((b"\x04" if self._has("socks4.reply-version") else b"\0") + reply[1:])

    def _refuse(self, client: socket.socket, request: Request, reply: Reply) -> None:
        if request.version == Version.SOCKS5:
            client.sendall(socks5.build_reply(reply, UNSPECIFIED))
        else:
            granted = self._has("socks4.refused") and reply is Reply.CONNECTION_REFUSED
            client.sendall(socks4.build_reply(Reply4.GRANTED if granted else Reply4.REJECTED, UNSPECIFIED))
        if self._has("socks5.ends-after-refusal"):
            client.recv(1)
        raise _Over

    def _connect(self, client: socket.socket, request: Request) -> None:
        host, port, kind = request.destination
        faults = {AddressType.IPV6: "socks5.connect-ipv6", AddressType.DOMAIN_NAME: "socks5.connect-name"}
        if self._has(faults.get(kind, "none")) or (self._has("socks5.connect") and request.version == 5):
            self._refuse(client, request, Reply.GENERAL_FAILURE)
        if self._has("socks5.port-0") and not port:
            self._grant(client, request, UNSPECIFIED)
            raise _Over
        target = self._dial(client, request, host, port)
        self._open.append(target)
        with target:
            bound = Address.of(*target.getsockname()[:2])
            self._grant(
                client, request, bound._replace(port=1) if self._has("socks5.bound-address") else bound
            )
            self._relay(client, target)

    def _dial(self, client: socket.socket, request: Request, host: str, port: int) -> socket.socket:
        reply = Reply.CONNECTION_REFUSED
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            found = []
            reply = Reply.GENERAL_FAILURE if self._has("socks5.no-such-name") else Reply.HOST_UNREACHABLE
        if self._has("socks5.connect-next-address"):
            found = found[:1]
        for family, _, _, _, place in found:
            target = socket.socket(family, socket.SOCK_STREAM)
            try:
                target.connect(place)
            except OSError:
                target.close()
            else:
                return target
        if self._has("socks5.refused"):
            reply = Reply.SUCCEEDED
        self._refuse(client, request, reply)
        raise _Over

    # The relay.

    def _relay(self, client: socket.socket, target: socket.socket) -> None:
        if self._has("relay.client-reads-nothing") or self._has("relay.destination-reads-nothing"):
            self._in_turns(client, target)
            return
        other = self._thread(
            self._copy, target, client, "relay.destination-half-closes", "relay.destination-ends"
        )
        self._copy(client, target, "relay.client-half-closes", "relay.client-ends")
        other.join()

    def _copy(self, source: socket.socket, sink: socket.socket, half_closes: str, ends: str) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        if self._has(ends):
            threading.Event().wait(5)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
            if self._has(half_closes):
                sink.shutdown(socket.SHUT_RDWR)
                source.shutdown(socket.SHUT_RDWR)
            elif self._has("relay.long-answer"):
                sink.settimeout(0.2)
                threading.Event().wait(0.3)
                sink.shutdown(socket.SHUT_RDWR)
                source.shutdown(socket.SHUT_RDWR)

    def _in_turns(self, client: socket.socket, target: socket.socket) -> None:
        """One thread that waits until all is sent: where one direction is full, the other one waits, too."""
        while True:
            for source in select.select([client, target], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                (target if source is client else client).sendall(data)

    # BIND.

    def _bind(self, client: socket.socket, request: Request) -> None:
        version = f"socks{request.version}"
        named = request.destination.type is AddressType.DOMAIN_NAME
        if self._has("socks4a.bind" if named else f"{version}.bind"):
            self._refuse(client, request, Reply.GENERAL_FAILURE)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._open.append(listening)
            bound = Address.of(*listening.getsockname())
            self._grant(
                client,
                request,
                UNSPECIFIED._replace(port=bound.port) if self._has("socks5.bind-address") else bound,
            )
            ready = select.select([client, listening], [], [])[0]
            if client in ready:
                if self._has("socks5.bind-client-ends"):
                    threading.Event().wait(5)
                raise _Over
            peer = listening.accept()[0]
        with peer:
            expected = socket.gethostbyname(request.destination.host)
            if peer.getpeername()[0] != expected and not self._has("socks5.bind-wrong-peer"):
                self._refuse(client, request, Reply.NOT_ALLOWED)
            self._grant(client, request, Address.of(*peer.getpeername()))
            self._relay(client, peer)

    # RESOLVE.

    def _resolve(self, client: socket.socket, request: Request) -> None:
        host = request.destination.host
        if request.command == Command.RESOLVE:
            found = "0.0.0.0" if self._has("resolve.name") else socket.gethostbyname(host)
        else:
            found = host if self._has("resolve.address") else socket.gethostbyaddr(host)[0]
        _end(client, socks5.build_reply(Reply.SUCCEEDED, Address.of(found, 0)))

    # UDP ASSOCIATE.

    def _associate(self, client: socket.socket, request: Request) -> None:
        if self._has("udp.associate"):
            self._refuse(client, request, Reply.GENERAL_FAILURE)
        _Association(self._fault, client, request, self._open).run()


class _Association:
    """An association of one client."""

    def __init__(
        self, fault: str, control: socket.socket, request: Request, opened: list[socket.socket]
    ) -> None:
        self._fault = fault
        self._control = control
        self._host: str = control.getpeername()[0]
        self._relay = _datagrams("127.0.0.1")
        self._outlets = {AddressType.IPV4: _datagrams("127.0.0.1"), AddressType.IPV6: _datagrams("::1")}
        opened.extend((self._relay, *self._outlets.values()))
        self._client: tuple[str, int] | None = None
        if request.destination.port:
            self._client = (request.destination.host, request.destination.port)
            if fault == "udp.announced":
                self._client = (request.destination.host, 1)
        self._parts: list[bytes] = []
        self._first: Address | None = None

    def run(self) -> None:
        bound = Address.of(*self._relay.getsockname())
        if self._fault == "udp.bound-address":
            bound = UNSPECIFIED._replace(port=bound.port)
        self._control.sendall(socks5.build_reply(Reply.SUCCEEDED, bound))
        outlets = list(self._outlets.values())
        waiting = [self._control, self._relay, *outlets]
        while True:
            ready = select.select(waiting, [], [])[0]
            if self._control in ready and not self._control.recv(64):
                if self._fault != "udp.ends":
                    return
                waiting.remove(self._control)
            if self._relay in ready:
                data, source = self._relay.recvfrom(65536)
                if source is None:  # the server has ended
                    return
                self._from_client(data, source)
            for outlet in outlets:
                if outlet in ready:
                    self._from_target(*outlet.recvfrom(65536)[:2])

    def _from_client(self, data: bytes, source: tuple[str, int]) -> None:
        if source[0] != self._host and not self._takes_strangers():
            return
        if self._fault == "udp.first-source" and self._client is not None and source != self._client:
            return
        if self._client is None or self._fault in ("udp.other-source", "udp.other-port"):
            self._client = source
        if source != self._client:
            return
        self._pass_on(data)

    def _takes_strangers(self) -> bool:
        """One fault concerns a stranger that comes first, the other one that comes later."""
        return self._fault == ("udp.first-source" if self._client is None else "udp.other-source")

    def _pass_on(self, data: bytes) -> None:
        try:
            parsed = datagram.parse_datagram(data)
        except Exception:
            if self._fault == "udp.malformed":
                raise _Over from None
            return
        header, at = parsed
        payload = data[at:]
        if header.fragment and self._fault != "udp.fragments":
            return
        if self._fault == "udp.sizes":
            payload = payload[:1500]
        kind = header.address.type
        if (self._fault, kind) in (("udp.ipv6", AddressType.IPV6), ("udp.name", AddressType.DOMAIN_NAME)):
            return
        host = (
            socket.gethostbyname(header.address.host)
            if kind is AddressType.DOMAIN_NAME
            else header.address.host
        )
        outlet = self._outlets[AddressType.IPV6 if kind is AddressType.IPV6 else AddressType.IPV4]
        self._first = self._first or header.address
        if self._fault == "udp.after-refused" and _refuses(host, header.address.port):
            raise _Over
        outlet.sendto(payload, (host, header.address.port))

    def _from_target(self, payload: bytes, source: tuple[str, int]) -> None:
        address = Address.of(*source[:2])
        if self._fault == "udp.several-destinations" and self._first is not None:
            address = self._first
        if self._client is not None:
            self._relay.sendto(datagram.build_header(address) + payload, self._client)


def _refuses(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
        trying.settimeout(0.02)
        trying.connect((host, port))
        trying.send(b"?")
        try:
            trying.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True
        return False


def _datagrams(host: str) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    found.bind((host, 0))
    return found


def _take(client: socket.socket, size: int) -> bytes:
    """*size* bytes of *client*, within its timeout for all of them."""
    data = b""
    while len(data) < size:
        some = client.recv(size - len(data))
        if not some:
            raise _Over
        data += some
    return data


def _more(client: socket.socket) -> bool:
    """Whether more bytes have come already."""
    return bool(select.select([client], [], [], 0)[0])


def _end(client: socket.socket, answer: bytes) -> None:
    client.sendall(answer)
    raise _Over
