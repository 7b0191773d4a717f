"""How a pool chooses among its members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from socksproxy.routes.choosing import Choosable, Chooser, chooser_of
from socksproxy.values.pools import Choose
from socksproxy.values.rendezvous import key_of


class Fake:
    """A member as choosers see it."""

    def __init__(self, name: str, weight: int = 1, most: int = 1 << 30) -> None:
        self.name = name
        self.weight = weight
        self.entry = 0
        self.sessions = 0
        self.living = True
        self.most = most

    @property
    def full(self) -> bool:
        return self.sessions >= self.most


def members(count: int = 5, **more: int) -> list[Fake]:
    return [Fake(f"m{number}", **more) for number in range(count)]


def made(choose: Choose, some: Sequence[Fake], chance: int = 1) -> Chooser:
    chooser = chooser_of(choose, some, Random(chance))
    chooser.set([member for member in some if member.living])
    return chooser


def names(chooser: Chooser, count: int, key: bytes = b"k") -> list[str]:
    found = [chooser.next((), key) for _ in range(count)]
    return [member.name for member in found if member is not None]


@pytest.mark.parametrize("choose", Choose)
def test_what_holds_for_all(choose: Choose) -> None:
    """Each member is chosen once until all are tried; a full one and one that is down never are."""
    some = members()
    some[1].most = 0
    some[3].living = False
    chooser = made(choose, some)
    tried: list[Choosable] = []
    for _ in range(3):
        member = chooser.next(tried, b"k")
        assert member is not None
        tried.append(member)
    assert {member.name for member in tried} == {"m0", "m2", "m4"}
    assert chooser.next(tried, b"k") is None
    chooser.set([])
    for member in some:
        member.living = False
    assert chooser.next((), b"k") is None


def test_first() -> None:
    some = members()
    assert names(made(Choose.FIRST, some), 3) == ["m0"] * 3


def test_round_robin() -> None:
    """Each in turn; the start is by chance, so that not all workers begin with the same one."""
    some = members()
    found = names(made(Choose.ROUND_ROBIN, some), 10)
    assert sorted(found[:5]) == [member.name for member in some]
    assert found[:5] == found[5:]
    assert len({names(made(Choose.ROUND_ROBIN, some, seed), 1)[0] for seed in range(50)}) == 5


def test_round_robin_weights() -> None:
    """A member of three times the weight has three turns of four, and not all at once."""
    some = [Fake("a", 30), Fake("b", 10)]
    found = "".join(names(made(Choose.ROUND_ROBIN, some), 8))
    assert Counter(found) == {"a": 6, "b": 2}
    assert "bb" not in found
    assert "aaaa" not in found


def test_random_weights() -> None:
    """e 20: 10,000 picks, by weight, and only members."""
    some = [Fake("a", 6), Fake("b", 3), Fake("c", 1)]
    found = Counter(names(made(Choose.RANDOM, some), 10000))
    assert set(found) == {"a", "b", "c"}
    assert sum(found.values()) == 10000
    for name, share in (("a", 6000), ("b", 3000), ("c", 1000)):
        assert abs(found[name] - share) < 300


def test_least_sessions() -> None:
    """The one with the fewest sessions for its weight, while sessions come and go."""
    some = [Fake("a"), Fake("b"), Fake("c", 2)]
    chooser = made(Choose.LEAST_SESSIONS, some)
    for _ in range(400):
        member = chooser.next((), b"")
        assert isinstance(member, Fake)
        member.sessions += 1
        chooser.changed(member)
    assert [member.sessions for member in some] == [100, 100, 200]
    some[1].sessions = 7
    chooser.changed(some[1])
    assert names(chooser, 2) == ["b", "b"]
    some[1].living = False
    chooser.set([some[0], some[2]])
    assert "b" not in names(chooser, 3)


def test_least_sessions_in_turn() -> None:
    """Of several without a session it is not always the first one."""
    some = members()
    chooser = made(Choose.LEAST_SESSIONS, some)
    found = []
    for _ in range(10):
        member = chooser.next((), b"")
        assert isinstance(member, Fake)
        found.append(member.name)
        for change in (1, -1):
            member.sessions += change
            chooser.changed(member)
    assert set(found) == {member.name for member in some}


def test_hash() -> None:
    """A key has its member; without the member it has another one, and comes back to it later."""
    some = members(10)
    chooser = made(Choose.HASH_USER, some)
    keys = [key_of("user", str(number)) for number in range(300)]
    before = [names(chooser, 1, key)[0] for key in keys]
    assert set(before) == {member.name for member in some}
    some[4].living = False
    chooser.set([member for member in some if member.living])
    after = [names(chooser, 1, key)[0] for key in keys]
    assert all(now == then or then == "m4" for now, then in zip(after, before, strict=True))
    assert "m4" not in after
    some[4].living = True
    chooser.set(some)
    assert [names(chooser, 1, key)[0] for key in keys] == before


def test_hash_past_those_that_are_remembered() -> None:
    some = members(10)
    chooser = made(Choose.HASH_CLIENT, some)
    order = []
    tried: list[Choosable] = []
    while (member := chooser.next(tried, b"k")) is not None:
        tried.append(member)
        order.append(member.name)
    assert sorted(order) == sorted(member.name for member in some)
    for member in tried[:9]:
        assert isinstance(member, Fake)
        member.living = False
    assert names(chooser, 1) == [order[9]]
