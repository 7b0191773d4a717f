"""Fragments and how they become one."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from socksproxy.runtime.deadlines import Deadlines
from socksproxy.udp.drops import Drop
from socksproxy.udp.reassembly import MAX_DATAGRAM, TIME, Reassembly
from socksproxy.wire.datagram import LAST_FRAGMENT

Fragment = tuple[int, bool, bytes, bytes]


class Set(Reassembly):
    """A set of fragments that counts those that were thrown away."""

    def __init__(self) -> None:
        self.dropped = 0
        self.clock = Clock()
        super().__init__(Deadlines(self.clock, TIME, Reassembly.clear), self.clock, self._count)

    def take(self, position: int, last: bool, header: bytes, payload: bytes) -> bytes | None:
        return self.add(position | last * LAST_FRAGMENT, header, payload)

    def _count(self, reason: Drop, count: int) -> None:
        assert reason is Drop.FRAGMENT
        assert count
        self.dropped += count


def take(fragments: list[Fragment]) -> tuple[list[bytes], int]:
    """What comes of *fragments*, and how many of them are lost."""
    reassembly = Set()
    whole = [reassembly.take(*fragment) for fragment in fragments]
    reassembly.clear()
    return [data for data in whole if data is not None], reassembly.dropped


@pytest.mark.parametrize(
    ("sequence", "whole", "dropped"),
    [
        ("1!", ["1"], 0),
        ("1 2!", ["12"], 0),
        ("1 2 3!", ["123"], 0),
        ("1! 1!", ["1", "1"], 0),
        ("1 2 1 2!", ["12"], 2),  # begins again on a lower number
        ("1 1 2!", ["12"], 1),
        ("1 3!", [], 2),  # one is lost
        ("1 2 4 5!", [], 4),
        ("2!", [], 1),
        ("2 1!", ["1"], 1),
        ("2 1 3!", [], 3),
        ("1 2 2 3!", [], 4),
        ("0!", [], 1),
        ("1 0 2!", [], 3),
        ("1", [], 1),
    ],
)
def test_sequences(sequence: str, whole: list[str], dropped: int) -> None:
    """Else two datagrams become one, or one is delivered with a hole."""
    fragments = [(int(part[0]), part.endswith("!"), b"to", part[0].encode()) for part in sequence.split()]
    assert take(fragments) == ([data.encode() for data in whole], dropped)


def test_destinations_do_not_mix() -> None:
    """Else the end of one datagram goes to another's destination."""
    assert take([(1, False, b"a", b"1"), (2, True, b"b", b"2")]) == ([], 2)


def test_all_of_them() -> None:
    """The highest position is 127."""
    fragments = [(n, n == 127, b"to", bytes([n])) for n in range(1, 128)]
    assert take(fragments) == ([bytes(range(1, 128))], 0)


@pytest.mark.parametrize(("last", "fits"), [(MAX_DATAGRAM - 60000, True), (MAX_DATAGRAM - 60000 + 1, False)])
def test_bound(last: int, fits: bool) -> None:
    """Else fragments are memory that anybody can have."""
    whole, dropped = take([(1, False, b"to", bytes(60000)), (2, True, b"to", bytes(last))])
    assert [len(data) for data in whole] == ([MAX_DATAGRAM] if fits else [])
    assert dropped == (0 if fits else 2)


def test_time() -> None:
    """The RFC's least. It is that of the set, and a set that is whole or lost needs no timer."""
    assert TIME >= 5
    fragments = Set()
    fragments.take(1, False, b"to", b"1")
    fragments.clock.advance(TIME - 1)
    fragments.take(2, False, b"to", b"2")
    fragments.clock.advance(1)
    assert (fragments.pending, fragments.dropped) == (0, 2)
    fragments.take(1, False, b"to", b"1")
    fragments.take(2, True, b"to", b"2")
    fragments.clock.advance(TIME)
    assert fragments.clock.getDelayedCalls() == []


FRAGMENTS = st.tuples(
    st.integers(0, 127),
    st.booleans(),
    st.sampled_from([b"a", b"b"]),
    st.binary(max_size=20) | st.just(bytes(9000)),
)


@given(st.lists(FRAGMENTS, max_size=60))
def test_any_order(fragments: list[Fragment]) -> None:
    """No order raises, grows without bound, or loses count of a fragment."""
    reassembly, delivered = Set(), 0
    for number, fragment in enumerate(fragments, 1):
        waiting = reassembly.pending
        whole = reassembly.take(*fragment)
        assert reassembly.pending <= 127
        assert reassembly._size <= MAX_DATAGRAM
        if whole is not None:
            delivered += waiting + 1 if fragment[0] != 1 else 1
        assert delivered + reassembly.dropped + reassembly.pending == number


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9), st.data())
def test_with_losses(parts: list[bytes], data: st.DataObject) -> None:
    """After whatever was lost or doubled before, a set that comes whole is delivered whole."""
    good = [(n, n == len(parts), b"to", part) for n, part in enumerate(parts, 1)]
    noise = data.draw(st.lists(st.sampled_from(good), max_size=20))
    whole, _ = take([*noise, *good])
    assert whole[-1] == b"".join(parts)
