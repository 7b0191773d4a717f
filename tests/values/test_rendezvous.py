"""Rendezvous hashing: :mod:`socksproxy.values.rendezvous`."""

from __future__ import annotations

from collections import Counter

from socksproxy.values.rendezvous import MOST_KEYS, PLACES, Rendezvous, first_of, key_of, order_of

MEMBERS = [f"member{number}" for number in range(10)]
KEYS = [key_of("user", f"bob{number}") for number in range(400)]


def test_order() -> None:
    """Every key has its own order of all members, which the order of the list does not change."""
    key = key_of("user", "bob")
    order = order_of(key, MEMBERS)
    assert sorted(order) == sorted(MEMBERS)
    assert order == order_of(key, MEMBERS[::-1])
    assert MEMBERS[first_of(key, MEMBERS)] == order[0]
    # A new version of the program, and every worker, chooses the same.
    assert order[:3] == ["member0", "member6", "member4"]


def test_spread() -> None:
    """All members are chosen about as often."""
    counts = [0] * 10
    for key in KEYS:
        counts[first_of(key, MEMBERS)] += 1
    assert min(counts) > 15
    assert max(counts) < 70


def test_few_move() -> None:
    """A member that is new, or gone, changes the choice of about one of n keys, and of no other."""
    for key in KEYS:
        before = order_of(key, MEMBERS)
        assert order_of(key, MEMBERS[1:]) == [member for member in before if member != "member0"]
    moved = sum(
        MEMBERS[first_of(key, MEMBERS)] != [*MEMBERS, "new"][first_of(key, [*MEMBERS, "new"])] for key in KEYS
    )
    assert 10 < moved < 80


def test_key() -> None:
    """Where one part ends and the next one begins counts."""
    assert len({key_of("a", "bc"), key_of("ab", "c"), key_of("abc"), key_of("abc", "")}) == 4
    assert key_of("\udcff") != key_of("?")


def test_remembered() -> None:
    """The first members of a key, the same as by the plain order; only some keys are remembered."""
    ring = Rendezvous((name, 1, name) for name in MEMBERS)
    for key in KEYS[:50] * 2:
        assert list(ring.first(key)) == order_of(key, MEMBERS)[:PLACES]
    assert ring.order(KEYS[0], 99) == order_of(KEYS[0], MEMBERS)
    few = Rendezvous((name, 1, name) for name in MEMBERS[:2])
    for number in range(MOST_KEYS + 5):
        few.first(key_of(str(number)))
    assert len(few._known) == MOST_KEYS
    assert key_of("0") not in few._known


def test_weights() -> None:
    """A member of three times the weight has three times as many keys; with equal weights nothing changes."""
    ring = Rendezvous([("a", 3, "a"), ("b", 1, "b")])
    counts = Counter(ring.first(key_of(str(number)))[0] for number in range(4000))
    assert 2850 < counts["a"] < 3150
    heavy = Rendezvous((name, 1 + (name == "member0"), name) for name in MEMBERS)
    for key in KEYS:
        others = [name for name in heavy.order(key, 10) if name != "member0"]
        assert others == order_of(key, MEMBERS[1:])
