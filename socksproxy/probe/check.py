"""What a check is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .outcome import CheckOutcome
from .subject import ProbedServer


class Check(NamedTuple):
    """
    One thing that a server does rightly or not.

    :ivar id: its name, which does not change: ``subject.detail``.
    :ivar expected: what the server should do.
    :ivar source: the document and its section, or the client that relies on it.
    :ivar run: asks the server. It returns a detail worth telling, or raises an exception of
        :mod:`~socksproxy.probe.outcome`.
    :ivar needs: the id of a check that has to pass first; empty: none.
    :ivar slow: it only waits, so it runs beside the others.
    """

    id: str
    expected: str
    source: str
    run: Callable[[ProbedServer], str | None]
    needs: str = ""
    slow: bool = False


class Result(NamedTuple):
    """
    What came of a check.

    :ivar found: what the server did, in words; empty: there is nothing to tell.
    """

    check: Check
    verdict: CheckOutcome
    found: str


class Checks(list[Check]):
    """The checks of one subject, in the order in which they run and print."""

    def add(
        self, name: str, expected: str, source: str, *, needs: str = "", slow: bool = False
    ) -> Callable[[Callable[[ProbedServer], str | None]], Callable[[ProbedServer], str | None]]:
        """Make the decorated function a check."""

        def added(run: Callable[[ProbedServer], str | None]) -> Callable[[ProbedServer], str | None]:
            self.append(Check(name, expected, source, run, needs, slow))
            return run

        return added
