"""
Which sessions a question is about, and in which order they are listed.

Strategy: a filter is compiled into tests, one for each of its keys, and a session has to pass all of them. A
page keeps the best sessions that it has met, by a key that each process computes in the same way, so that
the pages of several processes can be merged. The cursor is the key of the last session of a page, so a page
begins where the one before ended, however many sessions have come and gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from heapq import nsmallest
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import isfinite
from typing import Any, NamedTuple

from ..logs.printable import line_of_record, shown
from ..session.record import rule_of, shown_command
from ..session.session import Session
from ..wire.words import Command
from .errors import RequestRefused

#: Sessions of a page: usually, and at the most.
USUAL_LIMIT, MOST_LIMIT = 100, 1000

#: Ids and addresses that one filter may have.
_MOST_IDS = 1000

#: The generation, the worker and the number of a session, which are its id.
Number = tuple[int, int, int]
_NUMBER = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})\.([0-9]{1,15})", re.ASCII)


class Seen(NamedTuple):
    """
    A session as a look has seen it.

    :ivar age: seconds.
    :ivar moved: bytes in both directions.
    :ivar rate: bytes per second in both directions.
    """

    session: Session
    age: float
    moved: int
    rate: float


Test = Callable[[Seen], bool]


def number_of(name: Any) -> Number:
    """
    What the session's id *name* consists of.

    :raises RequestRefused: when it is none.
    """
    match = _NUMBER.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise RequestRefused(400, f"not the id of a session, such as 1764468000000.1.17: {name!r:.80}")
    generation, worker, number = map(int, match.groups())
    return generation, worker, number


# Filters.


def tests_of(wanted: Mapping[str, Any]) -> list[Test]:
    """
    What a session has to pass; texts are compared exactly.

    :param wanted: the keys and values of a filter. The worker is the caller's to choose.
    :raises RequestRefused: for a key that there is not, or a value that makes no sense.
    """
    tests = []
    for key, value in wanted.items():
        make = FILTERS.get(key)
        if make is None:
            raise RequestRefused(400, f"no such filter: {key:.80}; there are {', '.join(FILTERS)}")
        tests.append(make(value))
    return tests


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RequestRefused(400, f"{key}: not a text")
    return value


def _number(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not isfinite(number) or number < 0:
        raise RequestRefused(400, f"{key}: not a number from 0 on")
    return number


def _by_id(value: Any) -> Test:
    names = value if isinstance(value, list) else [value]
    if len(names) > _MOST_IDS:
        raise RequestRefused(400, f"id: more than {_MOST_IDS}")
    wanted = {number_of(name) for name in names}
    return lambda seen: seen.session.number in wanted


def _by_user(value: Any) -> Test:
    user = _text("user", value)
    return lambda seen: (
        seen.session.client.user is not None
        and (user in (seen.session.client.user, line_of_record(seen.session.client.user)))
    )


def network_in(text: str) -> IPv4Network | IPv6Network | None:
    """The network that *text* is, where an address is a network of one; None: it is neither."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _by_client(value: Any) -> Test:
    text = _text("client", value)
    if text in ("unix", "local"):
        return lambda seen: seen.session.client.host is None
    network = network_in(text)
    if network is None:
        raise RequestRefused(400, f"client: neither an address nor a network: {text:.80}")
    within = lru_cache(4096)(lambda host: _is_within(host, network))
    return lambda seen: bool(seen.session.client.host) and within(seen.session.client.host)


def _is_within(host: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(host.partition("%")[0]) in network
    except ValueError:  # it is not known yet
        return False


def _by_destination(value: Any) -> Test:
    wanted = _text("destination", value).lower()

    def test(seen: Seen) -> bool:
        request = seen.session.request_if_any
        if request is None:
            return False
        destination = request.destination
        return wanted in (destination.host.lower(), shown(destination).lower())

    return test


def _by_command(value: Any) -> Test:
    word = _text("command", value).upper().replace("-", "_")
    if word == "ASSOCIATE":
        word = Command.UDP_ASSOCIATE.name
    if word not in Command.__members__:
        raise RequestRefused(400, f"command: there are {', '.join(Command.__members__)}")

    def test(seen: Seen) -> bool:
        request = seen.session.request_if_any
        return request is not None and shown_command(request.command) == word

    return test


def _by_listener(value: Any) -> Test:
    wanted = _text("listener", value)
    # A client has reached one address of a listener that has all of them.
    host, colon, port = wanted.rpartition(":")
    end = f"{colon}{port}" if host in ("0.0.0.0", "[::]") else None

    def test(seen: Seen) -> bool:
        words = seen.session.listener_words
        return wanted in words or (end is not None and any(word.endswith(end) for word in words))

    return test


def _by_rule(value: Any) -> Test:
    wanted = _text("rule", value)

    def test(seen: Seen) -> bool:
        service = seen.session.service
        reached = None if service is None else service.reached
        many = service is not None and service.counts().datagrams_sent is not None
        rule = rule_of(seen.session, reached, many)[0]
        return rule is not None and (rule == wanted or wanted in rule.split(","))

    return test


def _by_way(value: Any) -> Test:
    wanted = _text("via", value)

    def test(seen: Seen) -> bool:
        trail = None if seen.session.service is None else seen.session.service.trail
        if trail is None:
            return False
        way = trail.via
        if way is not None and (way == wanted or wanted in way.split(">")):
            return True
        # The way of a pool, and of an upstream without a proxy, has other names than those that it occupies.
        return any(counters.name == wanted for counters in trail.entered)

    return test


def _by_age(value: Any) -> Test:
    least = _number("older", value)
    return lambda seen: seen.age >= least


def _by_rate(value: Any) -> Test:
    least = _number("min_rate", value)
    return lambda seen: seen.rate >= least


#: What makes the test of each key.
FILTERS: dict[str, Callable[[Any], Test]] = {
    "id": _by_id,
    "user": _by_user,
    "client": _by_client,
    "destination": _by_destination,
    "command": _by_command,
    "listener": _by_listener,
    "rule": _by_rule,
    "via": _by_way,
    "older": _by_age,
    "min_rate": _by_rate,
}


# Pages.


class SessionPlace(NamedTuple):
    """
    Where a session stands in a list: the lowest comes first.

    :ivar key: what the list is sorted by.
    :ivar number: of the session, for sessions with the same key.
    """

    key: float
    number: Number

    @property
    def cursor(self) -> str:
        """The place as a text."""
        return f"{self.key!r}@{'.'.join(map(str, self.number))}"

    @classmethod
    def parse(cls, cursor: str) -> SessionPlace:
        """
        The place of *cursor*.

        :raises RequestRefused: when it is none.
        """
        key, _, name = cursor.partition("@")
        try:
            place = float(key)
        except ValueError:
            raise RequestRefused(400, "cursor: not one of an answer") from None
        return cls(place, number_of(name))


#: What lists can be sorted by: the key of a session.
ORDERS: dict[str, Callable[[Seen], float]] = {
    "age": lambda seen: seen.session.began,
    "rate": lambda seen: -seen.rate,
    "bytes": lambda seen: -float(seen.moved),
}


class Page:
    """
    The first sessions of a list behind a cursor.

    :param order: one of :data:`ORDERS`.
    :param limit: the most sessions.
    :param after: where the page before ended; None: it is the first.
    :ivar total: how many sessions match, on whatever page.
    :ivar more: whether there are more than fit.
    """

    def __init__(self, order: str, limit: int, after: SessionPlace | None) -> None:
        self._key = ORDERS[order]
        self._limit = limit
        self._after = after
        self._best: list[tuple[SessionPlace, Seen]] = []
        self.total = 0
        self.more = False

    def take(self, matching: list[Seen]) -> None:
        """*matching* are further sessions of the list."""
        self.total += len(matching)
        key = self._key
        if self._best and len(self._best) == self._limit:
            # Most sessions of a long list come behind those that the page has.
            worst = self._best[-1][0].key
            near = [seen for seen in matching if key(seen) <= worst]
            self.more |= len(near) < len(matching)
            matching = near
        placed = [(SessionPlace(key(seen), seen.session.number), seen) for seen in matching]
        if self._after is not None:
            placed = [each for each in placed if each[0] > self._after]
        all_of_them = self._best + placed
        self.more |= len(all_of_them) > self._limit
        self._best = nsmallest(self._limit, all_of_them, key=_place_of)

    @property
    def sessions(self) -> list[tuple[SessionPlace, Seen]]:
        """The sessions of the page, in their order."""
        return self._best


def _place_of(placed: tuple[SessionPlace, Seen]) -> SessionPlace:
    return placed[0]
