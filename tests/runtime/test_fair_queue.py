"""See :mod:`socksproxy.runtime.fair_queue`."""

from __future__ import annotations

from hypothesis import given, strategies as st

from socksproxy.runtime.fair_queue import FairQueue


def filled(*items: str) -> FairQueue[str]:
    """A queue with *items*, whose first letter is their share."""
    queue: FairQueue[str] = FairQueue()
    for item in items:
        queue.put(item[0], item)
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    """What the queue gives, in its order."""
    items = []
    while (taken := queue.take()) is not None:
        items.append(taken[1])
    return items


def test_shares_take_turns() -> None:
    """A client with many items delays another client by one item."""
    assert drained(filled("a1", "a2", "a3", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_share_without_a_turn_is_passed_over() -> None:
    """The items of a share that may not have a turn stay where they are."""
    queue = filled("a1", "b1")
    assert queue.take(lambda share: share != "a") == ("b", "b1")
    assert queue.take(lambda share: share != "a") is None
    assert queue.take() == ("a", "a1")


def test_discarded_items_are_gone() -> None:
    """A caller that does not wait any more takes its item out, once."""
    queue = filled("a1", "a2", "b1")
    assert queue.discard("a", "a1")
    assert not queue.discard("a", "a1")
    assert not queue.discard("x", "x1")
    assert len(queue) == 2
    assert drained(queue) == ["a2", "b1"]


def test_the_longest_share_makes_room() -> None:
    """A flood displaces its own newest item, whoever comes last."""
    queue = filled("a1", "a2", "a3", "b1")
    assert queue.shed("b") == "a3"
    assert drained(queue) == ["a1", "b1", "a2"]


def test_among_equals_the_newcomer_loses() -> None:
    """The newcomer has no claim to a place that a share of the same length holds already."""
    assert filled("a1", "b1").shed("b") == "b1"
    assert filled("a1", "b1").shed("a") == "a1"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_nothing_is_lost(steps: list[tuple[str, bool]]) -> None:
    """What goes in comes out once, and in order within a share."""
    queue: FairQueue[str] = FairQueue()
    put, taken = [], []
    for number, (share, take) in enumerate(steps):
        item = f"{share}{number:04}"
        queue.put(share, item)
        put.append(item)
        if take and (found := queue.take()) is not None:
            taken.append(found[1])
    taken += drained(queue)
    assert sorted(taken) == sorted(put)
    assert len(queue) == 0
    for share in "abcd":
        mine = [item for item in taken if item[0] == share]
        assert mine == sorted(mine)
