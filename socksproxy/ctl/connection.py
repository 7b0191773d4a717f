"""
The way to a server: where its admin socket is, and a client of the little HTTP that it takes.

The server closes the connection after each answer, and has no need of anything that HTTP/1.1 adds. A request
of HTTP/1.0 is a few lines, and its answer ends where the connection ends. To import :mod:`http.client` takes
several times as long as to start Python.
"""

from __future__ import annotations

import json
import os
import socket
from io import BufferedReader, RawIOBase
from time import monotonic

from .outcome import IN_PART, NO_SERVER, REFUSED, TIME_OVER, USAGE, CtlFailed

TYPE_CHECKING = False
if TYPE_CHECKING:  # to import typing takes half as long as to start Python
    from collections.abc import Iterator, Mapping
    from typing import Any, BinaryIO

#: The variable that says where the server is.
VARIABLE = "SOCKSPROXY_ADMIN"
#: The name of the socket in directories where it may be.
_NAME = "admin.sock"
#: Seconds for an answer.
USUAL_TIMEOUT = 30.0
#: Bytes of an answer that is read as a whole, and of a line.
_MOST, _LONGEST_LINE = 256 << 20, 1 << 20
#: Characters of a token, at the least.
_SHORTEST_TOKEN = 16


class ServerPlace:
    """
    Where a server is.

    :ivar text: as the operator has it.
    :ivar path: of a Unix socket; None: it is at an address.
    :ivar host: the name or address.
    :ivar port: the port.
    :ivar tls: whether it takes TLS.
    """

    __slots__ = ("host", "path", "port", "text", "tls")

    def __init__(
        self, text: str, path: str | None, host: str = "localhost", port: int = 0, tls: bool = False
    ) -> None:
        self.text = text
        self.path = path
        self.host = host
        self.port = port
        self.tls = tls


class ClientCredentials:
    """
    What a server at an address may ask for.

    :ivar token: the token; None: there is none.
    :ivar ca: a file with the authorities of the server's certificate; None: those of the machine.
    :ivar certificate: a file with our certificate, and maybe its key.
    :ivar key: a file with its key.
    """

    __slots__ = ("ca", "certificate", "key", "token")

    def __init__(
        self,
        token: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        self.token = token
        self.ca = ca
        self.certificate = certificate
        self.key = key


class AdminAnswer:
    """
    What a server answers.

    :ivar status: of HTTP.
    :ivar data: the body.
    """

    __slots__ = ("data", "status")

    def __init__(self, status: int, data: bytes) -> None:
        self.status = status
        self.data = data

    @property
    def body(self) -> Any:
        """
        What the JSON says.

        :raises CtlFailed: when it is none.
        """
        try:
            return json.loads(self.data)
        except ValueError:
            raise CtlFailed("the answer is not JSON: this is no admin socket of socksproxy") from None


def places(environment: Mapping[str, str]) -> list[str]:
    """The places of a server's socket, where no option names one."""
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    found = [runtime] if runtime else []
    found.append("/run/socksproxy")
    own = environment.get("XDG_RUNTIME_DIR")
    if own:
        found.append(os.path.join(own, "socksproxy"))
    return [os.path.join(directory, _NAME) for directory in found]


def find(said: str | None, environment: Mapping[str, str]) -> ServerPlace:
    """
    The server to ask.

    :param said: the option; None: the variable says it, or the socket is at one of the usual places.
    :raises CtlFailed: when there is none.
    """
    text = said or environment.get(VARIABLE)
    if text:
        return parse_place(text)
    usual = places(environment)
    for path in usual:
        if os.path.exists(path):
            return ServerPlace(path, path)
    raise CtlFailed(
        f"no admin socket at {' or '.join(usual)}: give --server or {VARIABLE}, if a server runs", NO_SERVER
    )


def parse_place(text: str) -> ServerPlace:
    """
    The place that *text* is: PATH, unix:PATH, http://HOST:PORT or https://HOST:PORT.

    :raises CtlFailed: when it is none.
    """
    scheme, colon, rest = text.partition("://")
    if not colon:
        return ServerPlace(text, text.partition(":")[2] if text.startswith("unix:") else text)
    host, _, port = rest.rstrip("/").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0
    right = host.isascii() and host.isprintable() and " " not in host
    # A look-up fails with another error otherwise.
    right = right and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
    if scheme not in ("http", "https") or not right or not 0 < number < 65536:
        raise CtlFailed(f"{text}: PATH, http://HOST:PORT or https://HOST:PORT is due", USAGE)
    return ServerPlace(text, None, host, number, scheme == "https")


class AdminClient:
    """
    Asks one server.

    :param place: where it is.
    :param credentials: what it may ask for.
    :param timeout: seconds for each answer, from the first step of its connection to its last byte.
    :param until: when the time is over for all answers together, on the monotonic clock; None: never.
    :ivar node: the name of the node that it asks; None: it is not known.
    """

    def __init__(
        self,
        place: ServerPlace,
        credentials: ClientCredentials | None = None,
        timeout: float = USUAL_TIMEOUT,
        until: float | None = None,
    ) -> None:
        self.place = place
        self.timeout = timeout
        self.until = until
        self.node: str | None = None
        self._credentials = credentials or ClientCredentials()
        self._seconds = timeout

    def at(self, place: ServerPlace) -> AdminClient:
        """What asks the server at *place* in the same way."""
        return AdminClient(place, self._credentials, self.timeout, self.until)

    def _begin(self) -> float:
        """When the time of an answer is over that is asked for now."""
        now = monotonic()
        over = now + self.timeout if self.until is None else min(now + self.timeout, self.until)
        self._seconds = max(0.0, over - now)
        return over

    def ask(self, method: str, path: str, body: Any = None) -> AdminAnswer:
        """
        Send a request, and take the answer, whatever its status is.

        :param body: for JSON; None: there is none.
        :raises CtlFailed: when there is no server, or no answer in time.
        """
        until = self._begin()
        with self._sent(method, path, body, until) as sock, BufferedReader(_Incoming(sock, until)) as stream:
            answer: AdminAnswer = self._told(_read, stream)
            return answer

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """
        What the JSON at *path* says.

        :param parameters: those that are None do not count.
        :raises CtlFailed: also when the server refuses.
        """
        return accepted(self.ask("GET", path + query_of(parameters or {}))).body

    def change(self, method: str, path: str, body: Any = None) -> Any:
        """
        Change something.

        :returns: what the JSON of the answer says.
        :raises CtlFailed: also when the server refuses.
        """
        return accepted(self.ask(method, path, body)).body

    def lines(self, path: str, parameters: Mapping[str, Any], idle: float | None) -> Iterator[bytes]:
        """
        The lines of an answer that takes its time.

        :param idle: the most seconds between two lines; None: no matter how many.
        :raises CtlFailed: also when the server refuses, or goes away before the end.
        """
        with self._sent("GET", path + query_of(parameters), None, self._begin()) as sock:
            sock.settimeout(idle)
            stream = BufferedReader(_Incoming(sock))
            status = self._told(_head, stream)[0]
            if status != 200:
                accepted(AdminAnswer(status, self._told(lambda each: each.read(_MOST), stream)))
            while line := self._told(lambda each: each.readline(_LONGEST_LINE), stream):
                yield line

    def _sent(self, method: str, path: str, body: Any, until: float) -> socket.socket:
        """The connection on which the request is sent."""
        try:
            sock = self._connected(until)
            try:
                sock.settimeout(_left(until))
                sock.sendall(self._request(method, path, body))
            except BaseException:
                sock.close()
                raise
        except OSError as problem:
            raise self._failed(problem) from None
        return sock

    def _connected(self, until: float) -> socket.socket:
        place = self.place
        if place.path is not None:
            return _connect(socket.AF_UNIX, place.path, _left(until))
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        for number, (family, *_, address) in enumerate(found, 1):
            try:
                # One address that does not answer leaves time for the others.
                sock = _connect(family, address, _left(until) / (len(found) + 1 - number))
                break
            except OSError:
                if number == len(found):
                    raise
        sock.settimeout(_left(until))
        return self._with_tls(sock) if place.tls else sock

    def _with_tls(self, sock: socket.socket) -> socket.socket:
        import ssl

        try:
            try:
                context = ssl.create_default_context(cafile=self._credentials.ca)
                if self._credentials.certificate is not None:
                    context.load_cert_chain(self._credentials.certificate, self._credentials.key)
            except OSError as problem:
                words = problem.strerror or str(problem)
                raise CtlFailed(f"--ca, --certificate or --key: {words}", USAGE) from None
            return context.wrap_socket(sock, server_hostname=self.place.host)
        except BaseException:
            sock.close()
            raise

    def _request(self, method: str, path: str, body: Any) -> bytes:
        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        lines = [f"{method} {path} HTTP/1.0", f"Host: {host}", "Accept: */*"]
        if self._credentials.token is not None:
            lines.append(f"Authorization: Bearer {self._credentials.token}")
        data = b"" if body is None else json.dumps(body).encode()
        if method not in ("GET", "HEAD"):
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii", "surrogateescape") + data

    def _told(self, read: Any, stream: BinaryIO) -> Any:
        try:
            return read(stream)
        except OSError as problem:
            raise self._failed(problem) from None

    def _failed(self, problem: OSError) -> CtlFailed:
        where = self.place.text
        if isinstance(problem, TimeoutError):
            return CtlFailed(f"{where}: no answer within {round(self._seconds, 1):g} seconds", TIME_OVER)
        words = problem.strerror or str(problem)
        status = REFUSED if isinstance(problem, PermissionError) else NO_SERVER
        return CtlFailed(f"{where}: {words}", status)


class _Incoming(RawIOBase):
    """
    What comes in on *sock*.

    :param until: when the time is over for all of it; None: the socket has its own bound.
    """

    def __init__(self, sock: socket.socket, until: float | None = None) -> None:
        self._sock = sock
        self._until = until

    def readable(self) -> bool:
        """See :meth:`io.IOBase.readable`."""
        return True

    def readinto(self, room: Any) -> int:
        """See :meth:`io.RawIOBase.readinto`."""
        if self._until is not None:
            self._sock.settimeout(_left(self._until))
        return self._sock.recv_into(room)


def _left(until: float) -> float:
    """
    The seconds that are left.

    :raises TimeoutError: when there are none.
    """
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(family: int, address: Any, seconds: float) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def token_in(path: str) -> str:
    """
    The token that the file at *path* has, as a server reads it.

    :raises CtlFailed: when it has none that can be one.
    """
    try:
        with open(path, encoding="latin-1") as file:
            token = file.read(_LONGEST_LINE).strip(" \t\r\n")
    except OSError as problem:
        raise CtlFailed(f"{path}: {problem.strerror}", USAGE) from None
    if not token:
        raise CtlFailed(f"{path}: there is no token in it", USAGE)
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        words = f"a token has at least {_SHORTEST_TOKEN} characters of ASCII, and no spaces"
        raise CtlFailed(f"{path}: what it has is no token: {words}", USAGE)
    return token


def _head(stream: BinaryIO) -> tuple[int, int | None]:
    """The status of the answer that begins, and how many bytes its body has; None: the header is missing."""
    first = stream.readline(_LONGEST_LINE).split()
    if not first:
        raise CtlFailed("the server closes the connection without an answer", NO_SERVER)
    if len(first) < 2 or not first[0].startswith(b"HTTP/") or not first[1].isdigit():
        raise CtlFailed("the answer is not HTTP: this is no admin socket of socksproxy")
    length = None
    while (line := stream.readline(_LONGEST_LINE).strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
    return int(first[1]), length


def _read(stream: BinaryIO) -> AdminAnswer:
    status, length = _head(stream)
    data = stream.read(_MOST if length is None else min(length, _MOST))
    if length is not None and len(data) < length:
        raise CtlFailed("the answer ends in the middle: the server went away", NO_SERVER)
    return AdminAnswer(status, data)


def accepted(answer: AdminAnswer) -> AdminAnswer:
    """
    The *answer* itself.

    :raises CtlFailed: when it says that the server refuses.
    """
    if answer.status < 300:
        return answer
    try:
        body = json.loads(answer.data)
        words, mistakes = str(body.get("error", body.get("why"))), body.get("mistakes", ())
    except (ValueError, AttributeError):
        raise CtlFailed(f"the server answers with the status {answer.status}") from None
    # On this node, and not on the others.
    done = not body.keys().isdisjoint(("changes", "ended", "unlocked"))
    raise CtlFailed(words, IN_PART if done else REFUSED, map(str, mistakes))


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(text: object) -> str:
    """*text* for a part of a path or for a parameter."""
    data = os.fsencode(str(text))
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)


def query_of(parameters: Mapping[str, Any]) -> str:
    """*parameters* behind a question mark; those that are None do not count."""
    pairs = [f"{name}={quoted(value)}" for name, value in parameters.items() if value is not None]
    return "?" + "&".join(pairs) if pairs else ""
