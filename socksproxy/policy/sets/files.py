"""
Files that hold the entries of sets, one entry a line.

Strategy: a thread reads a file into a new table, and the old table stays in use until the new one is whole.
So a reader sees one or the other.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from ipaddress import ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any
from weakref import WeakValueDictionary

from ...errors import describe
from ...runtime.files import FileSignature
from ...runtime.text import NotUTF8, without_mark
from ...runtime.watched_file import WatchedFile
from ..rules import BadValue, name_pattern, parse_network
from .tables import NameTable, NetworkTable, paced

#: Most bytes of a file: some ten million names.
MOST_BYTES = 256 << 20
#: Seconds that reading a file may take.
READ_WITHIN = 30.0
_LOW = (1 << 64) - 1
#: Names of the machine itself, which every hosts file has.
_OWN_NAMES = frozenset(
    {"localhost", "localhost.localdomain", "localdomain", "local", "broadcasthost", "0.0.0.0"}
)
_OWN_PREFIX = "ip6-"
# Most names in use match. A name that does not match is parsed in full.
_PLAIN_NAME = re.compile(r"(?=.{1,251}$)(?:\*?\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z][a-z0-9_-]{0,61}[a-z_]")
#: Most entries that do not count and are shown.
_MOST_SHOWN = 10


class SetFileError(Exception):
    """A file cannot be used; the operator reads the message."""


class SetFile:
    """
    A set in a file, with one entry a line; ``#`` begins a comment.

    The set is empty until it has been loaded.

    :param path: the file.
    """

    #: The entries. A table never changes; a reload puts another table in its place.
    table: Any

    def __init__(self, path: str) -> None:
        self._file = WatchedFile(path, MOST_BYTES, READ_WITHIN)
        self._ignoring: list[str] = []
        self._more_ignored = 0
        self.table = self._table(iter(()))
        #: The state of the file from which the table was read.
        self.held: FileSignature | None = None
        #: A line for each of the first entries that do not count, and one line for the others.
        self.ignored: tuple[str, ...] = ()

    def load(self) -> None:
        """
        Read the file. It takes a while, and any thread may do it.

        If another set has read the same state of this file, the two sets share one table.

        :raises SetFileError: when the file cannot be used; the last table stays in use.
        """
        try:
            content = self._file.read()
        except OSError as problem:
            raise SetFileError(f"{self.path}: {describe(problem)}") from None
        if not content.data:
            raise SetFileError(f"{self.path}: is empty; for an empty set, write a comment")
        if content.changed:
            raise SetFileError(f"{self.path}: changes while it is read")
        key = type(self), self.path
        other = _loaded.get(key)
        if other is not None and other.held == self._file.signature:
            self.table, self.ignored = other.table, other.ignored
        else:
            self.table, self.ignored = self._read(BytesIO(content.data))
        self.held = self._file.signature
        _loaded[key] = self

    def __len__(self) -> int:
        return len(self.table)

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._file.path

    def changed(self) -> bool:
        """Whether the file has changed since it was read, and no program is writing it just now."""
        return self._file.settled_change()

    def _read(self, file: Iterable[bytes]) -> tuple[Any, tuple[str, ...]]:
        """The table of *file*, and the lines for :attr:`ignored`."""
        self._ignoring, self._more_ignored = [], 0
        table = self._table(_lines(self.path, file))
        if self._ignoring and not len(table):
            raise SetFileError(f"{self._ignoring[0]}; no entry of the file counts")
        if self._more_ignored:
            self._ignoring.append(f"{self.path}: {self._more_ignored} more entries do not count")
        return table, tuple(self._ignoring)

    def _ignore(self, number: int, entry: str, right: str) -> None:
        """Note an entry that can never match, and go on without it."""
        if len(self._ignoring) < _MOST_SHOWN:
            self._ignoring.append(str(self._wrong(number, entry, right)))
        else:
            self._more_ignored += 1

    def _table(self, lines: Iterator[tuple[int, str]]) -> Any:
        raise NotImplementedError

    def _wrong(self, number: int, entry: str, right: str) -> SetFileError:
        data = entry.encode("utf-8", "surrogateescape")
        if data != entry.encode("utf-8", "replace"):
            return SetFileError(f"{self.path}, line {number}: {data[:80]!r}: is not UTF-8")
        return SetFileError(f"{self.path}, line {number}: {entry[:80]!r}: {right}")


#: The loaded sets, by class and path. A configuration that is read again has mostly the same files.
_loaded: WeakValueDictionary[tuple[type[SetFile], str], SetFile] = WeakValueDictionary()


def _lines(path: str, file: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers and without comments."""
    for number, line in enumerate(paced(file), 1):
        try:
            line = without_mark(line) if number == 1 else line
        except NotUTF8 as problem:
            raise SetFileError(f"{path}: {problem}") from None
        # One line in another encoding is one wrong entry.
        text = line.partition(b"#")[0].strip().decode("utf-8", "surrogateescape")
        if text:
            yield number, text


class NetworksFile(SetFile):
    """A file of addresses, networks and ranges (``192.0.2.1-192.0.2.9``)."""

    table: NetworkTable

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        return self.table.range_of(number, ipv6)

    def _table(self, lines: Iterator[tuple[int, str]]) -> NetworkTable:
        packed4 = array("Q")
        first6, last6 = (array("Q"), array("Q")), (array("Q"), array("Q"))
        for number, entry in lines:
            try:
                ipv6, first, last = _range(entry)
            except BadValue as wrong:
                raise self._wrong(number, entry, wrong.right) from None
            if not ipv6:
                packed4.append(first << 32 | last)
                continue
            for halves, end in ((first6, first), (last6, last)):
                halves[0].append(end >> 64)
                halves[1].append(end & _LOW)
        ranges4 = ((packed >> 32, packed & 0xFFFFFFFF) for packed in packed4)
        ranges6 = (
            (first_high << 64 | first_low, last_high << 64 | last_low)
            for first_high, first_low, last_high, last_low in zip(*first6, *last6, strict=True)
        )
        return NetworkTable(ranges4, ranges6)


def _range(entry: str) -> tuple[bool, int, int]:
    """
    Whether *entry* is IPv6, and its first and last address.

    :raises BadValue: when *entry* is neither an address nor a network nor a range.
    """
    host, slash, length = entry.partition("/")
    ipv6 = ":" in host
    try:
        number = int.from_bytes(inet_pton(AF_INET6 if ipv6 else AF_INET, host), "big")
    except (OSError, ValueError):
        pass  # a range, or a mistake
    else:
        if ipv6 and number >> 32 == 0xFFFF:
            pass  # IPv4-mapped: parse_network() finds the IPv4 network
        elif not slash:
            return ipv6, number, number
        elif length.isdecimal() and len(length) < 4 and int(length) <= (bits := 128 if ipv6 else 32):
            mask = (1 << bits - int(length)) - 1
            if not number & mask:
                return ipv6, number, number | mask
    network = parse_network(entry)
    return network.version == 6, int(network.network_address), int(network.broadcast_address)


class NamesFile(SetFile):
    """
    A file of names, or a hosts file.

    ``a.example`` is one name, ``*.example`` is every name below it, and ``.example`` is both. In a hosts file
    (``0.0.0.0 a.example b.example``), the addresses do not matter.
    """

    table: NameTable

    def holds(self, name: str) -> bool:
        return self.table.holds(name)

    def _table(self, lines: Iterator[tuple[int, str]]) -> NameTable:
        return NameTable(self._patterns(lines))

    def _patterns(self, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
        for number, text in lines:
            words = text.split()
            if len(words) > 1:
                if not _is_address(words[0]):
                    self._ignore(number, text, "must be one name, or an address and names")
                    continue
                words = [word for word in words[1:] if not _is_own(word.lower())]
            for word in words:
                pattern = word.lower()
                if _PLAIN_NAME.fullmatch(pattern):
                    yield pattern
                    continue
                try:
                    yield _name_of_file(word)
                except BadValue as wrong:
                    self._ignore(number, word, wrong.right)


def _name_of_file(word: str) -> str:
    """
    The pattern *word*, in a form that :class:`NameTable` takes.

    :raises BadValue: when no name can match *word*.
    """
    both = word.startswith(".")
    pattern = name_pattern(f"*{word}" if both else word)
    bare = pattern[2:] if pattern.startswith("*.") else pattern
    if pattern.startswith("@") or set(bare) & set("*?"):
        raise BadValue(word, "must be a name, *. and a name, or . and a name")
    return pattern[1:] if both else pattern


def _is_own(name: str) -> bool:
    return name in _OWN_NAMES or name.startswith(_OWN_PREFIX)


@lru_cache(maxsize=64)  # a hosts file has two or three
def _is_address(text: str) -> bool:
    try:
        ip_network(text.partition("%")[0])
    except ValueError:
        return False
    return True
