"""The scripts of the shared store, in a real Valkey."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st
from redis.exceptions import ResponseError

from socksproxy.shared.scripts import (
    ADMIT,
    COMMANDS,
    COUNT,
    FAILED,
    FORGIVEN,
    LEASE,
    LEAVE,
    LEND,
    LOAN,
    SEND,
    USAGE,
    Script,
    prefix,
)
from tests.support.valkey import Valkey

_sites = count()
LONG = 60_000


class Site:
    """A site of its own in a server, and scripts run in it."""

    def __init__(self, server: Valkey) -> None:
        self.client = server.client()
        self.prefix = prefix(f"test{next(_sites)}")

    def run(self, script: Script | str, keys: list[str], *arguments: Any) -> Any:
        text = script if isinstance(script, str) else script.text
        return self.client.eval(text, len(keys), *[self.prefix + key for key in keys], *arguments)

    def join(self, *columns: str, lease: int = LONG) -> None:
        for column in columns:
            self.run(LEASE, ["nodes"], column, lease, "", 1)

    def admit(self, column: str, sessions: list[list[list[Any]]], script: Script | str = ADMIT) -> Any:
        """Each need begins with the name of its key."""
        keys = list(dict.fromkeys(need[0] for session in sessions for need in session))
        places = [[[keys.index(need[0]) + 2, *need[1:]] for need in session] for session in sessions]
        answer = self.run(script, ["nodes", *keys], column, LONG, json.dumps(places))
        return answer if answer == "lost" else [int(word) for word in answer.split()]

    def row(self, name: str) -> dict[str, int]:
        return {key: int(value) for key, value in self.client.hgetall(f"{self.prefix}n:{name}").items()}


@pytest.fixture
def site(common: Valkey) -> Site:
    return Site(common)


def test_the_last_place(site: Site) -> None:
    """The sum over all columns counts, and one session more is refused."""
    site.join("a/1", "b/1")
    assert site.admit("a/1", [[["n:bob", 3]], [["n:bob", 3]]]) == [0, 0]
    assert site.admit("b/1", [[["n:bob", 3]], [["n:bob", 3]], [["n:ann", 3]]]) == [0, 1, 0]
    assert site.row("bob") == {"a/1": 2, "b/1": 1}


def test_all_or_none(site: Site) -> None:
    """A session that one holder refuses counts for no other, and its beginning does not count either."""
    site.join("a/1")
    needs = [["n:server", 9], ["r:net", 1_000_000, 1], ["n:bob", 0]]
    assert site.admit("a/1", [needs]) == [3]
    assert site.row("server") == {}
    assert site.admit("a/1", [[["r:net", 1_000_000, 1]]]) == [0]
    assert site.admit("a/1", [[["n:server", 9], ["r:net", 1_000_000, 1]]]) == [2]
    assert site.row("server") == {}


def test_rate(site: Site) -> None:
    """As many as the burst begin at once, and the key ends when they are all forgotten."""
    site.join("a/1")
    assert site.admit("a/1", [[["r:bob", 250_000, 4]]] * 5) == [0, 0, 0, 0, 1]
    assert 900 < site.client.pttl(f"{site.prefix}r:bob") <= 1001


def test_dead_column(site: Site) -> None:
    """A column whose lease is over counts no more, and goes away."""
    site.join("a/1", "b/1")
    site.admit("b/1", [[["n:bob", 1]]])
    assert site.admit("a/1", [[["n:bob", 1]]]) == [1]
    site.run(LEAVE, ["nodes"], "b/1")
    assert site.admit("a/1", [[["n:bob", 1]]]) == [0]
    assert site.row("bob") == {"a/1": 1}


def test_lost(site: Site) -> None:
    """A column without a lease is told so, and nothing is done."""
    assert site.admit("a/1", [[["n:bob", 1]]]) == "lost"
    assert site.row("bob") == {}
    assert site.run(LEASE, ["nodes"], "a/1", LONG, "", 0) == []
    site.join("a/1")
    assert site.run(LEASE, ["nodes"], "a/1", LONG, "", 0) == ["a/1"]
    assert site.run(LEASE, ["nodes"], "a/2", LONG, "a/1", 1) == ["a/2"]


def test_nothing_lasts(site: Site) -> None:
    """Every key has a time to live."""
    site.join("a/1")
    site.admit("a/1", [[["n:bob", 3], ["r:bob", 1_000_000, 3]]])
    site.run(COUNT, ["n:ann"], "a/1", LONG, 2)
    keys = site.client.keys(re.sub(r"([{}])", r"\1", site.prefix) + "*")
    assert len(keys) == 4
    assert all(0 < site.client.pttl(key) <= 2 * LONG for key in keys)


NEEDS = st.lists(
    st.tuples(st.sampled_from("pqr"), st.integers(0, 4)),
    min_size=1,
    max_size=5,
    unique_by=lambda need: need[0],
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from("abc"), st.lists(NEEDS, min_size=1, max_size=4)),
        st.tuples(st.just("count"), st.sampled_from("abc"), st.sampled_from("pqr"), st.integers(0, 3)),
        st.tuples(st.just("leave"), st.sampled_from("abc")),
    ),
    max_size=20,
)


@given(steps=STEPS)
def test_model(common: Valkey, steps: list[Any]) -> None:
    """Whatever nodes do, a session is admitted if and only if all sums of living columns leave it room."""
    site = Site(common)
    rows: dict[str, dict[str, int]] = {row: {} for row in "pqr"}
    site.join("a/1", "b/1", "c/1")
    for what, name, *more in steps:
        column = f"{name}/1"
        if what == "leave":
            site.run(LEAVE, ["nodes"], column)
            site.join(column)
            for row in rows.values():
                row.pop(column, None)
            for each in "pqr":
                site.run(COUNT, [f"n:{each}"], column, LONG, 0)
        elif what == "count":
            row, number = more
            rows[row][column] = number
            site.run(COUNT, [f"n:{row}"], column, LONG, number)
        else:
            expected = []
            for needs in more[0]:
                over = [at for at, (row, most) in enumerate(needs, 1) if sum(rows[row].values()) >= most]
                expected.append(over[0] if over else 0)
                if not over:
                    for row, _ in needs:
                        rows[row][column] = rows[row].get(column, 0) + 1
            sessions = [[[f"n:{row}", most] for row, most in needs] for needs in more[0]]
            assert site.admit(column, sessions) == expected
    for name, row in rows.items():
        assert site.row(name) == {key: number for key, number in row.items() if number}


def broken_off(script: Script) -> Iterator[str]:
    """The script, broken off before each of its commands in turn."""
    for number in count(1):
        yield (
            f"local left = {number}\nlocal real = redis\n"
            "local redis = {call = function(...) left = left - 1\n"
            "if left == 0 then error('broken off') end\nreturn real.call(...) end}\n" + script.text
        )


def test_broken_off(site: Site) -> None:
    """
    A script that ends between any two of its commands leaves nothing that the next counts do not repair.

    A node that gets no answer begins a new column, writes its own counts, and gives up the old column.
    """
    steps = 0
    for number, text in enumerate(broken_off(ADMIT)):
        site.client.flushall()
        old, new = f"a/{number}", f"a/{number}-new"
        site.join("b/1", "gone/1", old)
        site.run(COUNT, ["n:bob"], "b/1", LONG, 2)
        site.run(COUNT, ["n:bob", "n:server"], "gone/1", LONG, 1, 1)
        site.run(LEAVE, ["nodes"], "gone/1")
        needs = [["n:server", 9], ["n:bob", 5], ["r:bob", 1, 9]]
        try:
            site.admit(old, [needs, needs], text)
        except ResponseError:
            pass
        else:
            steps = number
            break
        site.run(LEASE, ["nodes"], new, LONG, old, 1)
        assert site.admit(new, [[["n:bob", 5]]] * 4) == [0, 0, 0, 2 - 1]
        assert site.admit(new, [[["n:server", 9]]]) == [0]
        assert site.row("bob") == {"b/1": 2, new: 3}
        assert site.row("server") == {new: 1}
        assert all(site.client.pttl(key) > 0 for key in site.client.keys(f"{site.prefix}n:*"))
    assert steps > 8


def lend(
    site: Site, column: str, wants: dict[str, list[Any]], text: Script | str = LEND
) -> list[tuple[int, int]] | str:
    answer = site.run(text, ["nodes", *wants], column, LONG, json.dumps(list(wants.values())))
    if answer == "lost":
        return "lost"
    numbers = [int(word) for word in answer.split()]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_lend(site: Site) -> None:
    """2 % of what is free is lent, less what there is already, and while more than half is free."""
    assert lend(site, "a/1", {"n:bob": [1000, 0]}) == "lost"
    site.join("a/1", "b/1")
    assert lend(site, "a/1", {"n:bob": [1000, 0], "n:all": [1e6, 0]}) == [(20, 20), (256, 256)]
    assert lend(site, "a/1", {"n:bob": [1000, 15]}) == [(19, 4)]
    assert site.row("bob") == {"a/1": 24}
    site.run(COUNT, ["n:bob"], "b/1", LONG, 477)
    assert lend(site, "a/1", {"n:bob": [1000, 24]}) == [(10, 0)]
    site.run(COUNT, ["n:bob"], "b/1", LONG, 500)
    assert lend(site, "a/1", {"n:bob": [1000, 24], "n:ten": [10, 0]}) == [(0, 0), (0, 0)]
    site.run(LEAVE, ["nodes"], "b/1")
    assert lend(site, "a/1", {"n:bob": [1000, 24]}) == [(20, 0)]
    assert site.row("bob") == {"a/1": 24}


def test_lend_twice(site: Site) -> None:
    """A limit may change while a question is on its way: what two wants of one row get counts together."""
    site.join("a/1")
    wants = [[1000, 0], [2000, 0]]
    answer = site.run(LEND, ["nodes", "n:bob", "n:bob"], "a/1", LONG, json.dumps(wants))
    assert answer == "20 20 39 39"
    assert site.row("bob") == {"a/1": 59}


def test_lend_of_rate(site: Site) -> None:
    """The same for a rate; what is given back is as if it had never been lent."""
    site.join("a/1")
    hour = 3600e6
    assert lend(site, "a/1", {"r:bob": [hour, 0, 1000]}) == [(20, 20)]
    assert site.admit("a/1", [[["r:bob", hour, 1000]]] * 479) == [0] * 479
    assert lend(site, "a/1", {"r:bob": [hour, 3, 1000]}) == [(10, 7)]
    assert lend(site, "a/1", {"r:bob": [hour, 3, 1000]}) == [(0, 0)]
    assert lend(site, "a/1", {"r:bob": [hour, -17, 1000]}) == [(0, 0)]
    assert site.admit("a/1", [[["r:bob", hour, 1000]]] * 512) == [0] * 511 + [1]
    assert lend(site, "a/1", {"r:ann": [hour, -5, 1000]}) == [(0, 0)]
    assert site.client.pttl(f"{site.prefix}r:ann") <= 1
    assert site.client.pttl(f"{site.prefix}r:bob") > 0


def test_lending_is_broken_off(site: Site) -> None:
    """What was lent by a script that has not answered goes away with the column."""
    steps = 0
    for number, text in enumerate(broken_off(LEND)):
        site.client.flushall()
        old, new = f"a/{number}", f"a/{number}-new"
        site.join("b/1", "gone/1", old)
        site.run(COUNT, ["n:bob", "n:all"], "gone/1", LONG, 1, 1)
        site.run(COUNT, ["n:bob"], "b/1", LONG, 2)
        site.run(LEAVE, ["nodes"], "gone/1")
        wants = {"n:bob": [100, 0], "n:all": [1000, 0], "r:bob": [1000, 0, 1000]}
        try:
            lend(site, old, wants, text)
        except ResponseError:
            pass
        else:
            steps = number
            break
        site.run(LEASE, ["nodes"], new, LONG, old, 1)
        assert site.admit(new, [[["n:bob", 5]]] * 4) == [0, 0, 0, 1]
        assert site.admit(new, [[["n:all", 1]]]) == [0]
        assert site.row("bob") == {"b/1": 2, new: 3}
        assert site.row("all") == {new: 1}
        assert all(site.client.pttl(key) > 0 for key in site.client.keys(f"{site.prefix}n:*"))
    assert steps > 10


def test_others_broken_off(site: Site) -> None:
    """The other scripts that write: the next call repairs what one that was broken off has left."""
    lease = LEASE, ["nodes"], ["a/2", LONG, "a/1", 1]
    counts = COUNT, ["n:bob", "n:ann"], ["a/2", LONG, 2, 0]
    send = SEND, [COMMANDS], ["kick", "bob", "n1", "x"]
    for written, keys, arguments in (lease, counts, send):
        steps = 0
        for text in broken_off(written):
            site.client.flushall()
            site.join("a/1")
            site.run(COUNT, ["n:bob", "n:ann"], "a/2", LONG, 1, 1)
            try:
                site.run(text, keys, *arguments)
            except ResponseError:
                steps += 1
                site.run(written, keys, *arguments)
                assert all(site.client.pttl(key) > 0 for key in site.client.keys(f"{site.prefix}*"))
                if written is LEASE:
                    assert site.client.zrange(f"{site.prefix}nodes", 0, -1) == ["a/2"]
                elif written is COUNT:
                    assert (site.row("bob"), site.row("ann")) == ({"a/2": 2}, {})
                else:
                    # A command that is there twice does the same as one.
                    assert 0 < site.client.xlen(f"{site.prefix}{COMMANDS}") <= 2
                continue
            break
        assert steps > 1


def test_different_things(site: Site) -> None:
    """Each thing counts once, however many columns have however many of it, as long as one of them lives."""

    def need(thing: str, most: int = 2) -> list[list[Any]]:
        return [["d:bob", most, thing]]

    def row() -> dict[str, str]:
        found: dict[str, str] = site.client.hgetall(f"{site.prefix}d:bob")
        return found

    site.join("a/1", "b/1", "gone/1")
    assert site.admit("gone/1", [need("x")]) == [0]
    assert site.admit("a/1", [need("x"), need("x"), need("y"), need("z")]) == [0, 0, 0, 1]
    assert site.admit("b/1", [need("y"), need("z"), [*need("z"), ["n:bob", 9]]]) == [0, 1, 1]
    assert site.row("bob") == {}
    assert row() == {"gone/1 x": "1", "a/1 x": "2", "a/1 y": "1", "b/1 y": "1"}
    site.run(COUNT, ["d:bob", "d:bob"], "a/1", LONG, "0 x", "0 y")
    site.run(LEAVE, ["nodes"], "gone/1")
    assert site.admit("b/1", [need("a b"), need("x")]) == [0, 1]
    assert row() == {"b/1 y": "1", "b/1 a b": "1"}
    site.run(COUNT, ["d:bob"], "b/1", LONG, "7 y")
    assert row() == {"b/1 y": "7", "b/1 a b": "1"}
    assert 0 < site.client.pttl(f"{site.prefix}d:bob") <= LONG
    for number, text in enumerate(broken_off(ADMIT)):
        site.client.delete(f"{site.prefix}d:bob")
        site.join(f"a/{number}")
        try:
            site.admit(f"a/{number}", [need("x")], text)
        except ResponseError:
            site.run(LEAVE, ["nodes"], f"a/{number}")
            assert site.admit("b/1", [need("y", 1)]) == [0]
            continue
        break


def test_late(site: Site) -> None:
    """What an old connection has on its way counts for nothing once the node has a new one."""
    site.join("a/1")
    site.run(LEASE, ["nodes"], "a/2", LONG, "a/1", 1)
    assert site.admit("a/1", [[["n:bob", 1]]]) == "lost"
    site.run(COUNT, ["n:bob"], "a/1", LONG, 7)
    assert site.admit("a/2", [[["n:bob", 1]]]) == [0]


def test_sites(common: Valkey) -> None:
    """Several sites share a server, and no key of one is a key of another."""
    one, other = Site(common), Site(common)
    for each in (one, other):
        each.join("a/1")
        assert each.admit("a/1", [[["n:bob", 1]]]) == [0]
    assert prefix("x") == "sp:{x}:1:"


def test_usage(site: Site) -> None:
    """Totals are absolute: told twice, or an old one after a new one, they are the same."""
    keys = ["u:2026-11-30:bob", "u:2026-11:bob"]

    def tell(node: str, of_day: int, of_month: int, text: Script | str = USAGE) -> list[int]:
        return [int(each) for each in site.run(text, keys, node, of_day, LONG, of_month, LONG)]

    assert tell("a", 5, 50) == [0, 0]
    assert tell("b", 7, 2**52) == [5, 50]
    assert tell("a", 4, 50) == [7, 2**52]
    assert tell("b", 7, 2**52) == [5, 50]
    assert tell("c", 0, 0) == [12, 2**52 + 50]
    assert all(0 < site.client.pttl(site.prefix + key) <= LONG for key in keys)
    for text in broken_off(USAGE):
        try:
            answer = tell("a", 6, 60, text)
        except ResponseError:
            assert tell("c", 0, 0)[0] in (12, 13)
            continue
        assert answer == [7, 2**52]
        break
    assert tell("c", 0, 0) == [13, 2**52 + 60]


def test_failures(site: Site) -> None:
    """The last failure begins a penalty, and each one is twice as long, up to the longest."""
    times = 60_000, 1000, 3000, LONG

    def fail(user: str = "x", text: Script | str = FAILED) -> list[int]:
        found: list[int] = site.run(text, ["f:net", "l:net", COMMANDS], user, 2, *times, "net")
        return found

    for level, seconds in enumerate([1000, 2000, 3000, 3000], 1):
        assert fail() == [0, 0]
        site.run(FORGIVEN, ["f:net"], "y")
        assert fail("y") == [seconds, level]
        left, known = fail()
        assert seconds - 500 < left <= seconds
        assert known == level
        site.client.hset(f"{site.prefix}l:net", "till", 0)
    assert fail() == [0, 0]
    site.run(FORGIVEN, ["f:net"], "x")
    assert fail() == [0, 0]
    for text in broken_off(FAILED):
        site.client.hset(f"{site.prefix}l:net", "till", 0)
        try:
            fail("x", text)
        except ResponseError:
            continue
        break
    assert site.client.pttl(f"{site.prefix}l:net") > 0


def test_loan(site: Site) -> None:
    """No more is lent than there is, and each node that asks has an equal part of what is scarce."""

    def lend(node: str, wanted: float, rate: float = 0.001, text: Script | str = LOAN) -> float:
        return float(site.run(text, ["b:bob"], rate, 1000, wanted, node))

    assert lend("a", 100) == 100
    assert lend("b", 100) == 100
    assert lend("a", 900) == pytest.approx(400, abs=1)
    assert lend("b", 900) == pytest.approx(200, abs=1)
    assert lend("c", 900) == pytest.approx(200 / 3, abs=1)
    assert sum(lend(node, 900) for node in "abcabcabcabcabcabcabcabc") < 1000 - 866
    assert 0 < site.client.pttl(f"{site.prefix}b:bob") <= 3600 * 1000 + 2000
    for text in broken_off(LOAN):
        try:
            assert lend("a", 900, 1e9, text) > 0
        except ResponseError:
            continue
        break
    assert lend("d", 5000, 1e9) <= 1000
