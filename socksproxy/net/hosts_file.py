"""
The hosts file (hosts(5)), and ``localhost`` (RFC 6761, section 6.3): names that need no resolver.

Strategy: a question for a name looks with one ``stat`` whether the file has changed, at most once a second. A
small file that has changed is read at once. A thread reads a large file, such as a block list, and the old
entries count until then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import NameNotFound, describe
from ..runtime.files import FileSignature, file_signature, read_regular_file
from ..wire.words import Address, AddressType
from .lookups import MOST_ADDRESSES, Found
from .names import bare_name, canonical, literal, unmapped

_log = Logger(namespace="socksproxy")

PATH = "/etc/hosts"
#: Seconds between two looks at the file.
LOOK_EVERY = 1.0
#: Bytes of the largest file that is read at once.
SMALL = 64 << 10
#: Bytes of the largest file.
MOST_BYTES = 32 << 20
#: Seconds in which the file must have been read; the reactor's thread waits while it reads a small file.
READ_WITHIN = 1.0

_LOOPBACK: Found = (("127.0.0.1", AddressType.IPV4), ("::1", AddressType.IPV6))

#: Calls a function in a thread; the Deferred fires with what the function returns.
InThread = Callable[..., Deferred[Any]]


class Entries(NamedTuple):
    """
    The entries of a hosts file.

    :ivar addresses: the addresses of each name, in the order of the lines.
    :ivar names: the first name of each address that no C library reads as an address.
    """

    addresses: dict[str, Found]
    names: dict[str, str]


_NOTHING = Entries({}, {})


def parse(lines: Iterable[bytes]) -> Entries:
    """The entries in the *lines* of a hosts file; a line that makes no sense is left out."""
    addresses: dict[str, list[tuple[str, AddressType]]] = {}
    names: dict[str, str] = {}
    for line in lines:
        words = line.partition(b"#")[0].decode("utf-8", "surrogateescape").split()
        host = literal(words[0].partition("%")[0]) if len(words) > 1 else None
        if host is None:
            continue
        address = unmapped(host, 0)
        for word in words[1:]:
            name = _name(word)
            found = addresses.setdefault(name, [])
            if len(found) < MOST_ADDRESSES and (address.host, address.type) not in found:
                found.append((address.host, address.type))
            if address.host not in names and _is_name(name):
                names[address.host] = name
    # All names of a block list have the same address, and so share one tuple.
    shared: dict[Found, Found] = {}
    return Entries(
        {name: shared.setdefault(tuple(found), tuple(found)) for name, found in addresses.items()}, names
    )


def _name(word: str) -> str:
    if word.isascii():
        return bare_name(word.lower())
    try:
        return bare_name(canonical(Address(word, 0, AddressType.DOMAIN_NAME)).host)
    except NameNotFound:
        return word  # no client can ask for it


def _is_name(text: str) -> bool:
    """Whether *text* can be the name in a reply."""
    try:
        return canonical(Address(text, 0, AddressType.DOMAIN_NAME)).type is AddressType.DOMAIN_NAME
    except NameNotFound:
        return False


def is_localhost(name: str) -> bool:
    """Whether *name*, without a dot at its end, is ``localhost`` or ends with ``.localhost``."""
    return name == "localhost" or name.endswith(".localhost")


class HostsFile:
    """
    Answers from a hosts file, at once.

    :param clock: for the time between looks.
    :param in_thread: runs a function in a thread, for large files.
    :param path: the file; None: :data:`PATH`. A file that does not exist has no entries.
    """

    def __init__(self, clock: IReactorTime, in_thread: InThread, path: str | None = None) -> None:
        self.path = PATH if path is None else path
        self._clock = clock
        self._in_thread = in_thread
        self._entries = _NOTHING
        self._signature: FileSignature | None = None
        self._looked: float | None = None
        self._look()

    def addresses(self, name: str) -> Found | None:
        """The addresses of *name*, a name in lower case and ASCII; None: a resolver has to be asked."""
        self._look()
        name = bare_name(name)
        found = self._entries.addresses.get(name)
        if found is None and is_localhost(name):
            return _LOOPBACK
        return found

    def defines(self, name: str) -> bool:
        """Whether the file has *name*, a name in lower case and ASCII."""
        self._look()
        return bare_name(name) in self._entries.addresses

    def name(self, host: str) -> str | None:
        """The name of the literal address *host*; None: a resolver has to be asked."""
        self._look()
        return self._entries.names.get(host)

    def _look(self) -> None:
        now = self._clock.seconds()
        if self._looked is not None and 0 <= now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        signature = _signature_of(self.path)
        if signature == self._signature:
            return
        self._signature = signature
        if signature is None:
            self._entries = _NOTHING
        elif signature.size <= SMALL:
            self._take(_read(self.path), signature)
        else:
            reading = self._in_thread(_read, self.path)
            reading.addCallbacks(self._take, self._broke, callbackArgs=(signature,))

    def _take(self, entries: Entries | str, signature: FileSignature) -> None:
        if signature != self._signature:
            return  # the file has changed once more, and is read again
        if isinstance(entries, str):
            _log.warn(
                "{path} cannot be read, its old entries stay: {problem}", path=self.path, problem=entries
            )
        else:
            self._entries = entries

    def _broke(self, failure: Failure) -> None:
        self._signature = None  # another look tries again
        _log.failure("{path} cannot be read", failure, path=self.path)


def _signature_of(path: str) -> FileSignature | None:
    try:
        return file_signature(os.stat(path))
    except OSError:
        return None


def _read(path: str) -> Entries | str:
    """The entries of the file at *path*; a text: why it cannot be read."""
    try:
        return parse(read_regular_file(path, MOST_BYTES, READ_WITHIN).data.splitlines())
    except OSError as problem:
        return describe(problem)
