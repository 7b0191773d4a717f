"""What a check is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .subject import Subject


class Verdict(Enum):
    """What a check says of the server."""

    PASS = "pass"
    FAIL = "fail"
    NOT_SERVED = "not served"
    NOT_RUN = "not run"


class Failed(Exception):
    """The server does something else than the check expects; the words say what."""


class NotServed(Exception):
    """The server says that it does not do what the check asks for."""


class NotRun(Exception):
    """The check needs what this machine or the options do not give."""


class Check(NamedTuple):
    """
    One thing that a server does rightly or not.

    :ivar id: its name, which does not change: ``subject.detail``.
    :ivar expected: what the server should do.
    :ivar source: the document and its section, or the client that relies on it.
    :ivar run: asks the server. It returns a detail worth telling, or raises one of the exceptions above.
    :ivar needs: the id of a check that has to pass first; empty: none.
    :ivar slow: it only waits, so it runs beside the others.
    """

    id: str
    expected: str
    source: str
    run: Callable[[Subject], str | None]
    needs: str = ""
    slow: bool = False


class Result(NamedTuple):
    """
    What came of a check.

    :ivar found: what the server did, in words; empty: there is nothing to tell.
    """

    check: Check
    verdict: Verdict
    found: str


class Checks(list[Check]):
    """The checks of one subject, in the order in which they run and print."""

    def add(
        self, name: str, expected: str, source: str, *, needs: str = "", slow: bool = False
    ) -> Callable[[Callable[[Subject], str | None]], Callable[[Subject], str | None]]:
        """Make the decorated function a check."""

        def added(run: Callable[[Subject], str | None]) -> Callable[[Subject], str | None]:
            self.append(Check(name, expected, source, run, needs, slow))
            return run

        return added


def expect(condition: bool, found: str) -> None:
    """
    Go on where *condition* holds.

    :raises Failed: otherwise, with what was *found*.
    """
    if not condition:
        raise Failed(found)
