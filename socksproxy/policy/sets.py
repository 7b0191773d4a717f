"""
Named sets of networks and of names, and files that hold a million entries.

Strategy: a table is a few sorted arrays of machine words, searched by bisection, so that a
million entries take some megabytes. What a file says is read by a thread into a new table, and
the old one stays in use until the new one is whole: a reader sees one or the other. That thread pauses
every millisecond or so (:func:`_paced`), and does nothing in one step that takes longer: the thread of the
event loop would have to wait for the interpreter's lock.
"""

from __future__ import annotations

import os
import re
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from heapq import merge
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from threading import current_thread, main_thread
from time import sleep
from typing import Any, Protocol as Shape, TypeVar
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import describe
from ..net.own_listeners import UNIX
from ..net.special_addresses import Special, special_network, special_networks
from ..runtime.files import FileSignature, file_signature, read_regular_file
from ..runtime.pool import NotRun, Pool
from ..runtime.text import NotUTF8, without_mark
from .rules import (
    Network,
    Problem,
    Rule,
    RuleError,
    Wrong,
    WrongEntries,
    entries_of,
    is_set,
    name_pattern,
    name_patterns,
    network_of,
    problem_of,
)

_log = Logger(namespace="socksproxy")

#: Seconds between two looks at a file.
LOOK_EVERY = 5.0
#: Bytes of a file: some ten million names.
MOST_BYTES = 256 << 20
#: Seconds in which a file must have been read.
READ_WITHIN = 30.0
#: Seconds in which all files that have changed must be loaded.
LOADED_WITHIN = 600.0
#: So many entries are sorted in one go: other threads wait for that long.
_AT_ONCE = 2000
#: So many entries are looked at between two pauses.
_BETWEEN_PAUSES = 256
#: Seconds of a pause: long enough for another thread to wake up and take the interpreter's lock.
_PAUSE = 0.0001
_LOW = (1 << 64) - 1
#: Names of a hosts file that are the machine's own business.
_OWN_NAMES = frozenset(
    {"localhost", "localhost.localdomain", "localdomain", "local", "broadcasthost", "0.0.0.0"}
)
_OWN_PREFIX = "ip6-"
# Most names in use. What does not match is looked at more closely.
_PLAIN_NAME = re.compile(r"(?=.{1,251}$)(?:\*?\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z][a-z0-9_-]{0,61}[a-z_]")
#: So many entries that do not count are shown.
_MOST_SHOWN = 10


class HoldsNetworks(Shape):
    """A set of networks whose content may change."""

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """The first and the last address of the range in the set that holds *number*, if there is one."""


class HoldsNames(Shape):
    """A set of names whose content may change."""

    def holds(self, name: str) -> bool:
        """Whether *name*, in lower case, ASCII and without a dot at its end, is in the set."""


T = TypeVar("T")


def _paced(items: Iterable[T]) -> Iterator[T]:
    """*items*, with pauses, in which other threads have their turn; without any in the main thread."""
    if current_thread() is main_thread():
        yield from items  # the server starts, and nothing else runs
        return
    for number, item in enumerate(items):
        if not number % _BETWEEN_PAUSES:
            sleep(_PAUSE)
        yield item


# Tables.


class NetworkTable:
    """
    Networks, as ranges of addresses that do not touch.

    :param ranges4: the first and the last address of each IPv4 range, in any order.
    :param ranges6: likewise for IPv6.
    """

    __slots__ = ("_begins4", "_first4", "_first6", "_last4", "_last6")

    def __init__(
        self, ranges4: Iterable[tuple[int, int]] = (), ranges6: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._first4, self._last4 = array("I"), array("I")
        for first, last in _paced(_joined(_in_order(first << 32 | last for first, last in ranges4), 32)):
            self._first4.append(first)
            self._last4.append(last)
        # Where each /16 begins: what is left to search is short.
        self._begins4 = array("I", (bisect_left(self._first4, high << 16) for high in _paced(range(0x10000))))
        self._begins4.append(len(self._first4))
        # The halves of an address: no machine word holds a whole one.
        self._first6, self._last6 = (array("Q"), array("Q")), (array("Q"), array("Q"))
        for first, last in _paced(_joined(_in_order(first << 128 | last for first, last in ranges6), 128)):
            for halves, number in ((self._first6, first), (self._last6, last)):
                halves[0].append(number >> 64)
                halves[1].append(number & _LOW)

    def __len__(self) -> int:
        return len(self._first4) + len(self._first6[0])

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """See :meth:`HoldsNetworks.range_of`."""
        if not ipv6:
            high = number >> 16
            begin, end = self._begins4[high], self._begins4[high + 1]
            index = bisect_right(self._first4, number, begin, end) - 1
            if index < 0 or number > self._last4[index]:
                return None
            return self._first4[index], self._last4[index]
        high, low = number >> 64, number & _LOW
        highs, lows = self._first6
        index = bisect_right(highs, high) - 1
        if index >= 0 and highs[index] == high:
            index = bisect_right(lows, low, bisect_left(highs, high, 0, index), index + 1) - 1
        if index < 0:
            return None
        last = self._last6[0][index] << 64 | self._last6[1][index]
        return None if number > last else (highs[index] << 64 | lows[index], last)


def _in_order(numbers: Iterable[int]) -> Iterator[int]:
    """*numbers* in order, without keeping every other thread waiting while they are sorted."""
    pieces: list[list[int]] = []
    piece: list[int] = []
    for number in _paced(numbers):
        piece.append(number)
        if len(piece) == _AT_ONCE:
            piece.sort(reverse=True)
            pieces.append(piece)
            piece = []
    piece.sort(reverse=True)
    return merge(*map(_emptied, pieces), _emptied(piece))


def _emptied(piece: list[int]) -> Iterator[int]:
    """What is in *piece*, from its end on. It is freed bit by bit: freeing it whole is one long step."""
    while piece:
        yield piece.pop()


def _joined(ranges: Iterable[int], bits: int) -> Iterator[tuple[int, int]]:
    """What is left of *ranges*, each of them two addresses of so many *bits* in one number, once joined."""
    mask = (1 << bits) - 1
    begin = end = -2
    for packed in ranges:
        first, last = packed >> bits, packed & mask
        if first <= end + 1:
            end = max(end, last)
            continue
        if begin >= 0:
            yield begin, end
        begin, end = first, last
    if begin >= 0:
        yield begin, end


#: The least that a table of names grows by.
_EMPTY_SLOTS = array("q", bytes(8 << 5))


class NameTable:
    """
    Names, of which only hashes are kept: 64 bits, with a secret of this process (as CPython's own).

    They are in an open hash table: bisection would go through the memory twenty times for each
    part of a name.

    :param patterns: ``a.example``; ``*.example``, all that ends so; ``.example``, both.
    """

    __slots__ = ("_length", "_mask", "_slots")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        hashes = array("q", (number for text in patterns for number in _hashes_of(text)))
        size = 2 << max(4, len(hashes).bit_length())
        self._mask = mask = size - 1
        self._slots = slots = array("q")
        for _ in _paced(range(size >> 5)):
            slots.extend(_EMPTY_SLOTS)
        self._length = 0
        for number in _paced(hashes):
            place = number & mask
            while slots[place] not in (0, number):
                place = place + 1 & mask
            self._length += not slots[place]
            slots[place] = number

    def __len__(self) -> int:
        return self._length

    def holds(self, name: str) -> bool:
        """See :meth:`HoldsNames.holds`."""
        if self._has(hash(name)):
            return True
        dot = name.find(".")
        while dot >= 0:
            if self._has(hash(name[dot:])):
                return True
            dot = name.find(".", dot + 1)
        return False

    def _has(self, number: int) -> bool:
        slots, mask = self._slots, self._mask
        place = number & mask
        while slots[place]:
            if slots[place] == number:
                return True
            place = place + 1 & mask
        return False


def _hashes_of(pattern: str) -> tuple[int, ...]:
    # 0 is an empty slot; that one name in 2**64 is in no set.
    if pattern.startswith("*."):
        return (hash(pattern[1:]),)
    return (hash(pattern), hash(pattern[1:])) if pattern.startswith(".") else (hash(pattern),)


# Files.


class Unusable(Exception):
    """A file cannot be taken; its words are for the operator."""


class SetFile:
    """
    A set in a file: one entry a line; ``#`` begins a comment.

    It is empty until it has been loaded.

    :param path: the file.
    """

    #: What its entries are, for the log.
    kind: str
    #: What was read; it is never changed, but for another one.
    table: Any

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        #: What is in use, or would be, of the file's states.
        self.taken: FileSignature | None = None
        #: The last state that was seen.
        self.seen: FileSignature | None = None
        #: The state of which the table is.
        self.held: FileSignature | None = None
        #: A line for each of the first entries of that state that do not count, and one for the others.
        self.ignored: tuple[str, ...] = ()
        self._ignoring: list[str] = []
        self._more_ignored = 0

    def load(self) -> None:
        """
        Read the file. It takes a while, and any thread may do it.

        What another set of this file has read of the same state, is not read again.

        :raises Unusable: when it cannot be taken; what was read before stays.
        """
        try:
            content = read_regular_file(self.path, MOST_BYTES, READ_WITHIN)
        except OSError as problem:
            raise Unusable(f"{self.path}: {describe(problem)}") from None
        before = file_signature(content.status)
        self.seen = self.taken = before
        if not content.data:
            raise Unusable(f"{self.path}: is empty; for an empty set, write a comment")
        if content.changed:
            raise Unusable(f"{self.path}: changes while it is read")
        key = type(self), self.path
        other = _loaded.get(key)
        if other is not None and other.held == before:
            table, ignored = other.table, other.ignored
        else:
            table, ignored = self._read(BytesIO(content.data))
        self._use(table)
        self.held, self.ignored = before, ignored
        _loaded[key] = self

    def changed(self) -> bool:
        """Whether the file has another content than the last time, and nobody is writing it just now."""
        try:
            signature: FileSignature | None = file_signature(os.stat(self.path))
        except OSError:
            signature = None
        settled = signature == self.seen
        self.seen = signature
        return settled and signature is not None and signature != self.taken

    def _read(self, file: Iterable[bytes]) -> tuple[Any, tuple[str, ...]]:
        """The table of *file*, and what :attr:`ignored` is for it."""
        self._ignoring, self._more_ignored = [], 0
        table = self._table(_lines(self.path, file))
        if self._ignoring and not len(table):
            raise Unusable(f"{self._ignoring[0]}; no entry of the file counts")
        if self._more_ignored:
            self._ignoring.append(f"{self.path}: {self._more_ignored} more entries do not count")
        return table, tuple(self._ignoring)

    def _ignore(self, number: int, entry: str, right: str) -> None:
        """Go on without an entry that can never match."""
        if len(self._ignoring) < _MOST_SHOWN:
            self._ignoring.append(str(self._wrong(number, entry, right)))
        else:
            self._more_ignored += 1

    def _table(self, lines: Iterator[tuple[int, str]]) -> Any:
        raise NotImplementedError

    def _use(self, table: Any) -> None:
        raise NotImplementedError

    def _wrong(self, number: int, entry: str, right: str) -> Unusable:
        return Unusable(f"{self.path}, line {number}: {entry[:80]!r}: {right}")


#: Those whose content is known, by kind and path. When a configuration is read again, most are the same.
_loaded: WeakValueDictionary[tuple[type[SetFile], str], SetFile] = WeakValueDictionary()


def _lines(path: str, file: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """The lines that say something, without comments, and their numbers."""
    for number, line in enumerate(_paced(file), 1):
        try:
            line = without_mark(line) if number == 1 else line
            text = line.partition(b"#")[0].strip().decode("utf-8")
        except NotUTF8 as problem:
            raise Unusable(f"{path}: {problem}") from None
        except UnicodeDecodeError:
            raise Unusable(f"{path}, line {number}: {line[:80]!r}: is not UTF-8") from None
        if text:
            yield number, text


class NetworksFile(SetFile):
    """A file of addresses, networks and ranges (``192.0.2.1-192.0.2.9``)."""

    kind = "networks"
    table: NetworkTable

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.table = NetworkTable()

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """See :meth:`HoldsNetworks.range_of`."""
        return self.table.range_of(number, ipv6)

    def __len__(self) -> int:
        return len(self.table)

    def _table(self, lines: Iterator[tuple[int, str]]) -> NetworkTable:
        packed4 = array("Q")
        first6, last6 = (array("Q"), array("Q")), (array("Q"), array("Q"))
        for number, entry in lines:
            try:
                ipv6, first, last = _range(entry)
            except Wrong as wrong:
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

    def _use(self, table: NetworkTable) -> None:
        self.table = table


def _range(entry: str) -> tuple[bool, int, int]:
    """
    Whether *entry* is IPv6, and its first and last address.

    :raises Wrong: when it is neither an address nor a network nor a range.
    """
    host, slash, length = entry.partition("/")
    ipv6 = ":" in host
    try:
        number = int.from_bytes(inet_pton(AF_INET6 if ipv6 else AF_INET, host), "big")
    except (OSError, ValueError):
        pass  # something else, or nothing
    else:
        if ipv6 and number >> 32 == 0xFFFF:
            pass  # IPv4-mapped: what it means is told below
        elif not slash:
            return ipv6, number, number
        elif length.isdecimal() and len(length) < 4 and int(length) <= (bits := 128 if ipv6 else 32):
            mask = (1 << bits - int(length)) - 1
            if not number & mask:
                return ipv6, number, number | mask
    network = network_of(entry)
    return network.version == 6, int(network.network_address), int(network.broadcast_address)


class NamesFile(SetFile):
    """
    A file of names (``a.example``, ``*.example`` for what ends so, ``.example`` for both), or a hosts file.

    Of a hosts file (``0.0.0.0 a.example b.example``) the addresses do not matter.
    """

    kind = "names"
    table: NameTable

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.table = NameTable()

    def holds(self, name: str) -> bool:
        """See :meth:`HoldsNames.holds`."""
        return self.table.holds(name)

    def __len__(self) -> int:
        return len(self.table)

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
                except Wrong as wrong:
                    self._ignore(number, word, wrong.right)

    def _use(self, table: NameTable) -> None:
        self.table = table


def _name_of_file(word: str) -> str:
    """
    The pattern that *word* is, one of those that :class:`NameTable` takes.

    :raises Wrong: when no name can match it.
    """
    both = word.startswith(".")
    pattern = name_pattern(f"*{word}" if both else word)
    bare = pattern[2:] if pattern.startswith("*.") else pattern
    if pattern.startswith("@") or set(bare) & set("*?"):
        raise Wrong(word, "must be a name, *. and a name, or . and a name")
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


class SetFiles:
    """
    Loads files in a thread, and again when they have changed.

    :param reactor: for time and threads.
    :param files: the files.
    :param every: seconds between two looks.
    """

    def __init__(self, reactor: Any, files: Iterable[SetFile], every: float = LOOK_EVERY) -> None:
        self._reactor = reactor
        self._pool = Pool(reactor, name="set files", threads=1, waiting=1, deadline=LOADED_WITHIN)
        self._every = every
        self._timer: Any = None
        self._stopped = False
        self.files = list(files)

    def start(self) -> Deferred[None]:
        """
        Load all, and look at them from now on.

        :returns: fires when all have been tried; a warning names each that cannot be taken, and
            those are empty.
        """
        self._stopped = False
        return self._in_thread(self._load_all, self.files)

    def watch(self) -> None:
        """Look at them from now on; they are loaded already."""
        self._stopped = False
        for file in self.files:
            self._tell_ignored(file)
        self._again(None)

    def look(self) -> Deferred[None]:
        """Load those that have changed."""
        return self._in_thread(self._look)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _in_thread(self, work: Callable[..., list[str]], *arguments: Any) -> Deferred[None]:
        done: Deferred[Any] = self._pool.run(work, *arguments)
        return done.addCallbacks(self._tell, self._broke).addBoth(self._again)

    def _look(self) -> list[str]:
        return self._load_all([file for file in self.files if file.changed()])

    def _load_all(self, files: Iterable[SetFile]) -> list[str]:
        told = []
        for file in files:
            try:
                file.load()
            except Unusable as problem:
                told.append(str(problem))
            else:
                self._reactor.callFromThread(self._tell_ignored, file)
        return told

    def _tell(self, problems: list[str]) -> None:
        for problem in problems:
            _log.warn("a set is not read, what was read before stays: {problem}", problem=problem)

    def _tell_ignored(self, file: SetFile) -> None:
        for entry in file.ignored:
            _log.warn("an entry of a set does not count: {entry}", entry=entry)

    def _broke(self, failure: Failure) -> None:
        if failure.check(NotRun):
            if not self._stopped:
                _log.error("sets cannot be read: {problem}", problem=str(failure.value))
        else:
            _log.failure("sets cannot be read", failure)

    def _again(self, _: None) -> None:
        if not self._stopped and self._timer is None:
            self._timer = self._reactor.callLater(self._every, self._due)

    def _due(self) -> None:
        self._timer = None
        self.look()


# Sets by their names.

_KINDS = {
    "loopback": Special.LOOPBACK,
    "unspecified": Special.UNSPECIFIED,
    "link-local": Special.LINK_LOCAL,
    "metadata": Special.METADATA,
    "multicast": Special.MULTICAST,
    "broadcast": Special.BROADCAST,
    "reserved": Special.RESERVED,
}


def _built_in() -> dict[str, tuple[Network, ...]]:
    named: dict[str, tuple[Network, ...]] = {name: special_networks(kind) for name, kind in _KINDS.items()}
    named["special"] = tuple(network for networks in named.values() for network in networks)
    for name, texts in {
        "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
        "shared": ("100.64.0.0/10",),
        "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"),
    }.items():
        named[name] = tuple(map(network_of, texts))
    return named


#: Sets of networks that are always there.
BUILT_IN: Mapping[str, tuple[Network, ...]] = _built_in()

#: The one of them to which networks may be added, and the one that holds it.
METADATA, _SPECIAL = "metadata", "special"
#: Names that no other set may have.
_TAKEN = tuple(name for name in (*BUILT_IN, UNIX) if name != METADATA)


@lru_cache(maxsize=4096)
def glob(pattern: str) -> re.Pattern[str]:
    """The expression for *pattern*, in which ``*`` is any text and ``?`` any character but a dot."""
    return re.compile("".join({"*": ".*", "?": "[^.]"}.get(c) or re.escape(c) for c in pattern))


class _Networks:
    """
    Networks, and what holds others.

    :param networks: a few.
    :param others: each is asked.
    """

    def __init__(self, networks: Iterable[Network], others: Iterable[HoldsNetworks]) -> None:
        self._ends = [
            (network.version == 6, int(network.network_address), int(network.broadcast_address))
            for network in networks
        ]
        self._others = tuple(others)

    def range_of(self, number: int, ipv6: bool) -> tuple[int, int] | None:
        """See :meth:`HoldsNetworks.range_of`; of several ranges it is the smallest."""
        found = [(first, last) for six, first, last in self._ends if six is ipv6 and first <= number <= last]
        found += [
            held for held in (other.range_of(number, ipv6) for other in self._others) if held is not None
        ]
        return min(found, key=lambda ends: ends[1] - ends[0], default=None)


class _Names:
    """
    Patterns of names, and what holds others.

    :param patterns: a few.
    :param others: each is asked.
    """

    def __init__(self, patterns: Iterable[str], others: Iterable[HoldsNames]) -> None:
        self._globs = [glob(pattern) for pattern in patterns]
        self._others = tuple(others)

    def holds(self, name: str) -> bool:
        """See :meth:`HoldsNames.holds`."""
        return any(pattern.fullmatch(name) for pattern in self._globs) or any(
            other.holds(name) for other in self._others
        )


class Sets:
    """
    Sets that rules name, beside :data:`BUILT_IN`.

    :param networks: of networks: what rules may name, or what holds so many that it is asked; or both,
        and several of that, in a list.
    :param names: of names, likewise.
    :raises RuleError: for mistakes, all of them.
    :ivar files: those that are sets, or parts of some.
    :ivar metadata: what *networks* has for the set ``metadata``, in addition to what is always in
        that set: special addresses of this place.
    """

    def __init__(
        self,
        networks: Mapping[str, Iterable[str | HoldsNetworks] | HoldsNetworks] | None = None,
        names: Mapping[str, Iterable[str | HoldsNames] | HoldsNames] | None = None,
    ) -> None:
        self.files: list[SetFile] = []
        problems: list[Problem] = []
        self.networks: dict[str, tuple[Network, ...] | HoldsNetworks] = dict(BUILT_IN)
        self.names: dict[str, tuple[str, ...] | HoldsNames] = {}
        self.metadata: tuple[Network, ...] = ()
        for name, content in (networks or {}).items():
            if not is_set(name) or name in _TAKEN:
                right = "must be a word in lower case, and none of " + ", ".join(_TAKEN)
                problems.append(Problem(name, "name", name, right, "set"))
                continue
            texts, others = self._parts(content, "range_of")
            fixed = _checked(name, "networks", texts, lambda text: (network_of(text),), problems)
            if name == METADATA:
                if others:
                    right = "takes networks only, and no file"
                    problems.append(Problem(name, "name", name, right, "set"))
                self._add_metadata(fixed)
                continue
            several = bool(texts) or len(others) > 1
            self.networks[name] = (_Networks(fixed, others) if several else others[0]) if others else fixed
        for name, patterns in (names or {}).items():
            if not is_set(name):
                problems.append(Problem(name, "name", name, "must be a word in lower case", "set"))
                continue
            texts, others = self._parts(patterns, "holds")
            fixed = _checked(name, "names", texts, _patterns, problems)
            several = bool(texts) or len(others) > 1
            self.names[name] = (_Names(fixed, others) if several else others[0]) if others else fixed
        if problems:
            raise RuleError(problems)

    def special_network(self, address: IPv4Address | IPv6Address) -> Network | None:
        """The network that makes *address* special, whatever the address may carry; None: it is ordinary."""
        for network in self.metadata:
            if address in network:
                return network
        found = special_network(address)
        return None if found is None else found[1]

    def _add_metadata(self, networks: tuple[Network, ...]) -> None:
        self.metadata = networks
        for name in (METADATA, _SPECIAL):
            self.networks[name] = BUILT_IN[name] + networks

    def _parts(self, content: Any, asked: str) -> tuple[list[Any], list[Any]]:
        """The entries in *content*, and what has a method *asked* of its own; files are kept."""
        parts = [content] if hasattr(content, asked) else list(content)
        others = [part for part in parts if hasattr(part, asked)]
        for part in others:
            if isinstance(part, SetFile) and not any(part is file for file in self.files):
                self.files.append(part)
        return [part for part in parts if not hasattr(part, asked)], others

    def problems(self, rule: Rule) -> list[Problem]:
        """The sets that *rule* names and that there are not."""
        found = []
        for field in ("clients", "networks", "names"):
            known: Mapping[str, object] = self.names if field == "names" else self.networks
            for text in getattr(rule, field) or ():
                name = text[1:] if field == "names" else text
                named = text.startswith("@") if field == "names" else is_set(text)
                if not named or name in known or (field == "clients" and name == UNIX):
                    continue
                near = get_close_matches(name, known, 1)
                mark = "@" if field == "names" else ""
                right = f"there is no such set; {mark}{near[0]}?" if near else "there is no such set"
                found.append(Problem(rule.name, field, text, right))
        return found


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = name_patterns(value)
    if patterns[0].startswith("@"):
        raise Wrong(value, "must be a name; sets have no sets in them")
    return patterns


def _checked(
    name: str,
    field: str,
    content: Iterable[str],
    parse: Callable[[Any], Iterable[Any]],
    problems: list[Problem],
) -> tuple[Any, ...]:
    try:
        return entries_of(content, parse)
    except WrongEntries as wrong:
        problems += [problem_of(entry, name, field, "set") for entry in wrong.entries]
        return ()


# On such a machine names would be mixed up now and then.
assert sys.hash_info.width >= 64, "sets of names need hashes of 64 bits"
