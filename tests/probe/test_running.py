"""The order of checks, and what an exception says."""

from __future__ import annotations

import threading

import pytest

from socksproxy.probe.check import Check, Result
from socksproxy.probe.outcome import CheckOutcome, Failed, NotPossible, NotServed
from socksproxy.probe.running import run
from socksproxy.probe.subject import ProbedServer, Where

_SUBJECT = ProbedServer(Where("127.0.0.1", 1))


def _check(name: str, problem: Exception | None = None, needs: str = "", slow: bool = False) -> Check:
    def run(subject: ProbedServer) -> str | None:
        if problem is not None:
            raise problem
        return f"{name} ran"

    return Check(name, "it runs", "none", run, needs, slow)


@pytest.mark.parametrize(
    ("problem", "verdict", "found"),
    [
        (None, CheckOutcome.PASS, "a ran"),
        (Failed("bad"), CheckOutcome.FAIL, "bad"),
        (NotServed("no"), CheckOutcome.NOT_SERVED, "no"),
        (NotPossible("without"), CheckOutcome.NOT_RUN, "without"),
        (OSError("too many files"), CheckOutcome.NOT_RUN, "too many files"),
    ],
)
def test_verdicts(problem: Exception | None, verdict: CheckOutcome, found: str) -> None:
    check = _check("a", problem)
    assert run([check], _SUBJECT) == [Result(check, verdict, found)]


@pytest.mark.parametrize(
    ("problem", "verdict"),
    [
        (Failed("bad"), CheckOutcome.NOT_RUN),
        (NotServed("no"), CheckOutcome.NOT_SERVED),
        (NotPossible("no"), CheckOutcome.NOT_RUN),
    ],
)
@pytest.mark.parametrize("slow", [False, True])
def test_needs(problem: Exception, verdict: CheckOutcome, slow: bool) -> None:
    results = run([_check("a", problem), _check("b", needs="a", slow=slow)], _SUBJECT)
    assert results[1].verdict is verdict
    assert results[1].found == "needs a"


def test_slow_checks_run_beside_the_others_and_are_told_in_order() -> None:
    going_on = threading.Event()

    def wait(subject: ProbedServer) -> str:
        return "went on" if going_on.wait(10) else "waited"

    def go_on(subject: ProbedServer) -> None:
        going_on.set()

    told: list[str] = []
    slow, quick = Check("slow", "", "", wait, slow=True), Check("quick", "", "", go_on)
    results = run([slow, quick], _SUBJECT, lambda result: told.append(result.check.id))
    assert [result.found for result in results] == ["went on", ""]
    assert told == ["slow", "quick"]
