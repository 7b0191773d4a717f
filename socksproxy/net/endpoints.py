"""
Additions to the descriptions of Twisted's endpoints that a listener needs.

Without ``backlog=`` an endpoint has a queue of 50 clients, and without ``mode=`` every local user may use
``unix:``. ``ssl:`` sends only the first certificate of ``certKey=``, though the file may have the whole
chain. ``systemd:`` answers a mistake with a number or a word.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from typing import Any

from ..runtime.files import read_regular_file
from ..twisted_internals import inner_endpoint, place_of_endpoint, systemd_sockets, tls_options_of
from .names import literal, plain
from .own_listeners import Place

#: Clients that may wait to be accepted; the kernel's own limit may be lower.
BACKLOG = 1024

#: The permissions of a Unix socket whose description has none; Twisted's default is 666.
MODE = 0o660
#: The place of the mode among the values without a name of ``unix:``.
_MODE_PLACE = 2

#: The place of the backlog among the values without a name, by the kind of endpoint.
_BACKLOG_PLACE = {"tcp": 3, "tcp6": 2, "unix": 3, "ssl": 6, "tls": 3}

#: The families of systemd's sockets, by the words of ``domain=``.
_FAMILIES = {"INET": socket.AF_INET, "INET6": socket.AF_INET6, "UNIX": socket.AF_UNIX}

#: The values of ``ssl:`` that name files.
_TLS_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters")
#: The key and certificate of an endpoint ``ssl:`` that names no key.
_DEFAULT_KEY = "server.pem"

#: A parameter of a description: ``VALUE:`` or ``NAME=VALUE:``, in which ``\\`` quotes.
_PARAMETER = re.compile(r"((?:\\.|[^:=\\])*)(=?)((?:\\.|[^:\\])*):", re.DOTALL)
_QUOTED = re.compile(r"\\(.)", re.DOTALL)

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class WrongSystemd(ValueError):
    """An endpoint ``systemd:`` names no socket that can be used."""


class NotPassed(WrongSystemd):
    """Systemd has passed no such socket to this process, but may pass it to another one."""


def place_asked_for(endpoint: Any) -> tuple[str, int] | None:
    """The address and the port on which *endpoint* will listen; None: the endpoint does not tell."""
    place = place_of_endpoint(endpoint)
    return None if place is None else (place[0] or "0.0.0.0", place[1])


def is_ipv6_wildcard(host: str) -> bool:
    """Whether *host* is ``::``, however it is written."""
    try:
        return int(IPv6Address(host)) == 0
    except ValueError:
        return False


def ipv4_ports(endpoints: Sequence[Any]) -> frozenset[int]:
    """The ports on which one of *endpoints* will listen for IPv4 with a socket of its own."""
    places = filter(None, map(place_asked_for, endpoints))
    return frozenset(port for host, port in places if port and ":" not in plain(host))


def with_backlog(description: str) -> str:
    """*description* of an endpoint, with our backlog if it has none."""
    kind, args, named = _parsed(description)
    if "backlog" in named or len(args) >= _BACKLOG_PLACE.get(kind, 0):
        return description
    return f"{description}:backlog={BACKLOG}"


def with_mode(description: str) -> str:
    """*description* of an endpoint, with our mode if it is a Unix socket without one."""
    kind, args, named = _parsed(description)
    if kind != "unix" or "mode" in named or len(args) >= _MODE_PLACE:
        return description
    return f"{description}:mode={MODE:o}"


def complete_chain(endpoint: Any, description: str) -> None:
    """
    Have *endpoint*, if it is one of ``ssl:``, send all certificates in the file of its own one.

    Twisted sends the first one only, and those of ``extraCertChain=``.

    :param description: the description of *endpoint*.
    :raises OSError: when the file cannot be read.
    :raises ValueError: when a certificate in the file cannot be read.
    """
    options = tls_options_of(inner_endpoint(endpoint))
    if options is None or options.extraCertChain:
        return
    from cryptography.x509 import load_pem_x509_certificate
    from OpenSSL.crypto import X509

    values = _tls_values(description)
    path = values.get("certKey") or values.get("privateKey") or _DEFAULT_KEY
    _, *others = _CERTIFICATE.findall(read_regular_file(path).data)
    options.extraCertChain = [X509.from_cryptography(load_pem_x509_certificate(pem)) for pem in others]


def tls_files(description: str) -> list[str]:
    """The files that Twisted reads when it makes an endpoint of *description*."""
    if _parsed(description)[0] != "ssl":
        return []
    values = {"privateKey": _DEFAULT_KEY} | _tls_values(description)
    return list(dict.fromkeys(values[key] for key in _TLS_FILES if values.get(key)))


def _tls_values(description: str) -> dict[str, str]:
    _, args, named = _parsed(description)
    return dict(zip(("port", "privateKey", "certKey"), args, strict=False)) | named


def check_keys(endpoint: Any) -> None:
    """
    Check that OpenSSL accepts the key, the certificates and the client authorities of *endpoint*, if it has
    any.

    :raises ValueError: when OpenSSL does not accept them, for example because a key is too short.
    """
    options = tls_options_of(inner_endpoint(endpoint))
    if options is None:
        return
    from OpenSSL.SSL import Error

    try:
        options.getContext()
    except Error as problem:
        words = [entry[-1] for entry in problem.args[0]] if problem.args else []
        raise ValueError(f"the key and the certificate cannot be used: {', '.join(words)}") from None


def check_systemd(description: str, used: frozenset[int] | set[int] = frozenset()) -> None:
    """
    Check that *description*, if it is one of ``systemd:``, names a socket that systemd has passed.

    :param used: descriptors that were passed and are closed by now.
    :raises WrongSystemd: when it does not; the text says what would be right.
    """
    kind, args, named = _parsed(description)
    if kind != "systemd":
        return
    family = _family_of(args, named)
    descriptor = _descriptor_of(named)
    if descriptor in used:
        return
    try:
        passed = socket.socket(fileno=os.dup(descriptor))
    except OSError as problem:
        raise NotPassed(f"what systemd has passed is not a socket: {problem.strerror}") from None
    with passed:
        if passed.type != socket.SOCK_STREAM:
            raise NotPassed("systemd has passed a socket of datagrams: ListenStream= is needed in its unit")
        if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise NotPassed("systemd has passed a connection: Accept=no is needed in the socket's unit")
        if passed.family != family:
            words = {value: word for word, value in _FAMILIES.items()}
            right = words.get(passed.family, passed.family)
            raise NotPassed(f"systemd has passed a socket of another family: domain={right} would be right")


def _family_of(args: Sequence[str], named: Mapping[str, str]) -> socket.AddressFamily:
    unknown = [name for name in named if name not in ("domain", "name", "index")]
    if args[1:] or unknown:
        surplus = [*args[1:], *unknown][0]
        raise WrongSystemd(f"{surplus}: only domain=, name= and index= are known")
    domain = args[0] if args else named.get("domain")
    if not domain or domain not in _FAMILIES:
        said = f"{domain} is none of them" if domain else "it is missing"
        raise WrongSystemd(f"domain= must be one of {', '.join(_FAMILIES)}: {said}")
    if ("name" in named) == ("index" in named):
        raise WrongSystemd("name=NAME must say which socket: the FileDescriptorName= of its unit")
    index = named.get("index")
    if index is not None and not (index.isascii() and index.isdecimal()):
        raise WrongSystemd(f"index={index} is not a number from 0 on")
    return _FAMILIES[domain]


def _descriptor_of(named: Mapping[str, str]) -> int:
    passed = systemd_sockets()
    names: dict[str, int] = passed.inheritedNamedDescriptors()
    descriptors: list[int] = passed.inheritedDescriptors()
    if not descriptors:
        raise NotPassed(
            "systemd has passed no socket to this process; its unit must have started the service, "
            "and LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES must be set"
        )
    if "name" in named:
        if named["name"] not in names:
            raise NotPassed(f"systemd has passed no socket of this name, but {', '.join(names)}")
        return names[named["name"]]
    if int(named["index"]) >= len(descriptors):
        raise NotPassed(f"systemd has passed {len(descriptors)} sockets only, and the first has index=0")
    return descriptors[int(named["index"])]


def place_described(description: str) -> Place | None:
    """
    The place on which an endpoint of *description* will listen.

    :returns: an address, or a wildcard, and a port; the path of a Unix socket; None: the place is known only
        when the endpoint opens, or a balancer tells the address that its clients have reached.
    """
    if description.lower().startswith("haproxy:"):
        return None
    kind, args, named = _parsed(description)
    if kind == "unix":
        return named.get("address") or (args[0] if args else None)
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    port = named.get("port") or (args[0] if args else "")
    host = named.get("interface") or (args[1] if kind != "ssl" and args[1:] else "")
    host = host or ("::" if kind == "tcp6" else "0.0.0.0")
    address = literal(host)
    if address is None or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        return None
    return plain(address), int(port)


def _parsed(description: str) -> tuple[str, list[str], dict[str, str]]:
    """The kind of endpoint that really listens, its values without names, and those with names."""
    args, named = _parameters(description)
    while args[0].lower() == "haproxy" and args[1:]:
        del args[0]
    return args[0].lower(), args[1:], named


def _parameters(description: str) -> tuple[list[str], dict[str, str]]:
    """The values without names in *description*, and those with names, as Twisted reads them."""
    args: list[str] = []
    named: dict[str, str] = {}
    for name, equals, value in _PARAMETER.findall(f"{description}:"):
        if equals:
            named[unquoted(name)] = unquoted(value)
        else:
            args.append(unquoted(name))
    return args, named


def unquoted(text: str) -> str:
    """*text* of a description without the backslashes that quote."""
    return _QUOTED.sub(r"\1", text)
