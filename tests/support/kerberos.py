"""
A real KDC (MIT's) on loopback, and what a client of it has.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from socksproxy.wire.gssapi import Level, Message, MessageType, build_message, parse_message

from .programs import missing, require
from .wrapping import WrappedSocket

#: How often a port is chosen anew that somebody else has taken in the meantime.
_ATTEMPTS = 10

#: Nothing may depend on a name server, or on how this machine is called.
_CLIENTS = {
    "libdefaults": {
        "dns_lookup_realm": "false",
        "dns_canonicalize_hostname": "false",
        "rdns": "false",
        "qualify_shortname": '""',
    },
    "realms": {"$realm": {"kdc": "127.0.0.1:$port0"}},
}
_KDC = {"realms": {"$realm": {"kdc_listen": "127.0.0.1:$port0", "kdc_tcp_listen": "127.0.0.1:$port0"}}}


class Realm:
    """
    The realm ``SOCKS.TEST``: a KDC with the users ``bob`` and ``bob/admin``, and the proxy's keys.

    The proxy is known by the names ``localhost`` and ``127.0.0.1``, for the services ``rcmd`` and ``socks``.

    :ivar keytab: has the proxy's keys.
    :ivar environment: what a program needs that has nothing but the realm: no ticket, no key.
    """

    def __init__(self) -> None:
        for program in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit", "kvno"):
            require(program)
        self._realm = _started()
        self.keytab = self._realm.keytab
        self.directory = Path(self._realm.tmpdir)
        for service in ("rcmd", "socks"):
            for host in ("localhost", "127.0.0.1"):
                self.add_service(f"{service}/{host}", self.keytab)
        for user in ("bob", "bob/admin"):
            self._realm.addprinc(user, "secret")
        self.environment = self.environment_of("nobody")

    def __enter__(self) -> Realm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._realm.stop()

    @property
    def name(self) -> str:
        """The realm's name."""
        return str(self._realm.realm)

    def add_service(self, principal: str, keytab: Path | str) -> None:
        """Make *principal*, with its key in *keytab*."""
        self._realm.addprinc(principal)
        self._realm.extract_keytab(principal, str(keytab))

    def change_key(self, principal: str, keytab: Path | str) -> None:
        """Give *principal* a new key, which is in *keytab* alone."""
        self._realm.run_kadminl(["ktadd", "-k", str(keytab), principal])

    def environment_of(self, name: str) -> dict[str, str]:
        """What a program of the client *name* needs; it has a ticket if :meth:`log_in` has got one."""
        environment = {key: self._realm.env[key] for key in ("KRB5_CONFIG", "KRB5RCACHEDIR")}
        return {**environment, "KRB5CCNAME": f"FILE:{self._cache(name)}", "KRB5_KTNAME": os.devnull}

    def log_in(self, principal: str, name: str | None = None) -> dict[str, str]:
        """Get a ticket for *principal*, and return what a program needs that uses it."""
        name = name or principal.replace("/", "-")
        environment = self.environment_of(name)
        self._realm.kinit(principal, "secret", env={**os.environ, **environment})
        return environment

    def log_in_with_wrong_clock(self, principal: str, seconds: int) -> dict[str, str]:
        """Likewise, for a client whose clock differs by *seconds* from everybody else's."""
        environment = self.log_in(principal, f"{principal}-{seconds}")
        # A KDC would not talk to such a client: this is one whose clock went wrong afterwards.
        self._realm.run([require("kvno"), "rcmd/localhost"], env={**os.environ, **environment})
        cache = self._cache(f"{principal}-{seconds}")
        data = cache.read_bytes()
        # The header of the format's version 4; its only field is the difference to the KDC's clock.
        version, length = struct.unpack_from("!HH", data)
        assert version == 0x0504
        header = struct.pack("!HHHHii", version, 12, 1, 8, seconds, 0)
        cache.write_bytes(header + data[4 + length :])
        return environment

    def _cache(self, name: str) -> Path:
        return self.directory / f"tickets-{name}"


def _started() -> Any:
    try:
        from k5test import K5Realm
    except ImportError:
        missing("the library k5test")
    for attempt in range(_ATTEMPTS):
        try:
            return K5Realm(
                realm="SOCKS.TEST",
                portbase=_free_port(),
                krb5_conf=_CLIENTS,
                kdc_conf=_KDC,
                create_user=False,
                create_host=False,
                get_creds=False,
            )
        except Exception:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


def _free_port() -> int:
    """A port that nobody has, of TCP and UDP alike; k5test wants to count on from it."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            number: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", number))
            except OSError:
                continue
        if number < 65500:
            return number


class Initiator:
    """
    The client's side of RFC 1961, without its socket.

    The process must have the realm's ``KRB5_CONFIG``.

    :param environment: of :meth:`Realm.log_in`.
    :param service: whom the ticket is for.
    :param flags: further ones of the context's.
    :param mutual: whether the server has to show who it is, too.
    """

    def __init__(
        self,
        environment: dict[str, str],
        service: str = "rcmd@localhost",
        flags: tuple[int, ...] = (),
        mutual: bool = True,
    ) -> None:
        from gssapi import MechType, Name, NameType, RequirementFlag, SecurityContext, raw

        # Bytes: what the package makes of a str is gone when it is used.
        store: Any = {b"ccache": os.fsencode(environment["KRB5CCNAME"])}
        found = raw.acquire_cred_from(store, mechs=[MechType.kerberos], usage="initiate")
        asked = [RequirementFlag.replay_detection, *flags]
        if mutual:
            asked.append(RequirementFlag.mutual_authentication)
        self.context: Any = SecurityContext(
            name=Name(service, NameType.hostbased_service),
            creds=found.creds,  # type: ignore[arg-type]
            mech=MechType.kerberos,
            flags=asked,  # type: ignore[arg-type]
            usage="initiate",
        )

    def first(self) -> bytes:
        """The message that begins the exchange."""
        return build_message(MessageType.AUTHENTICATION, self.context.step())

    def next(self, answer: bytes) -> bytes:
        """What the server's token in the message *answer* is answered with; it may be nothing."""
        message = whole_message(answer)
        assert message.type is MessageType.AUTHENTICATION
        token = self.context.step(message.token)
        return build_message(MessageType.AUTHENTICATION, token) if token else b""

    def ask(self, level: int, bare: bool = False) -> bytes:
        """The message that asks for the protection *level*; *bare*: as NEC's clients do."""
        token = bytes((level,))
        if not bare:
            token = self.context.wrap(token, False).message
        return build_message(MessageType.PROTECTION_LEVEL, token)

    def told(self, answer: bytes, bare: bool = False) -> int:
        """The level in the server's message *answer*."""
        message = whole_message(answer)
        assert message.type is MessageType.PROTECTION_LEVEL
        token = message.token if bare else self.context.unwrap(message.token).message
        (level,) = token
        return int(level)


def whole_message(data: bytes) -> Message:
    """The one message that *data* is."""
    parsed = parse_message(data)
    assert parsed is not None, f"not a whole message: {data!r}"
    message, taken = parsed
    assert taken == len(data), f"something stands behind the message: {data!r}"
    return message


def agree(
    sock: socket.socket,
    initiator: Initiator,
    level: int = Level.CONFIDENTIALITY,
    bare: bool = False,
    send: Callable[[bytes], object] | None = None,
) -> Any:
    """
    A client's whole exchange on *sock*; then a socket that encapsulates, or *sock*, as was agreed on.

    :param send: sends, if it is not ``sock.sendall``.
    """
    from socksproxy.auth.checkers.gssapi import GSSAPIWrapping

    send = send or sock.sendall
    send(b"\x05\x01\x01")
    assert sock.recv(100) == b"\x05\x01"
    message = initiator.first()
    while message:
        send(message)
        message = initiator.next(read_message(sock)) if not initiator.context.complete else b""
    send(initiator.ask(level, bare))
    told = initiator.told(read_message(sock), bare)
    if not told:
        return sock
    return WrappedSocket(sock, GSSAPIWrapping(initiator.context, told == Level.CONFIDENTIALITY))


def read_message(sock: socket.socket) -> bytes:
    """One message, and nothing behind it."""
    data = b""
    while parse_message(data) is None:
        piece = sock.recv(65536)
        assert piece, f"the end, after {data!r}"
        data += piece
    return data
