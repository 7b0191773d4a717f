"""
Work in slices: a step in each turn of the reactor, so that nothing else waits for the whole of it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def in_slices(reactor: Any, work: Generator[object, None, T]) -> Deferred[T]:
    """
    Do *work*, a step in each turn of *reactor*; the first one at once.

    :returns: fires with what *work* returns. Cancelling it ends *work* where it is.
    """
    turn: Any = None

    def cancelled(_: Deferred[T]) -> None:
        if turn is not None:
            turn.cancel()
        work.close()

    done: Deferred[T] = Deferred(cancelled)

    def step() -> None:
        nonlocal turn
        turn = None
        try:
            next(work)
        except StopIteration as end:
            done.callback(end.value)
        except Exception:
            done.errback()
        else:
            turn = reactor.callLater(0, step)

    step()
    return done
