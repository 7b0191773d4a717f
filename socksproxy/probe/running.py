"""Runs the checks, in their order; those that only wait run beside the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from .check import Check, Result
from .link import ServerClosed, ServerSilent
from .outcome import CheckOutcome, Failed, NotPossible, NotServed
from .subject import ProbedServer

_VERDICTS: dict[type[Exception], CheckOutcome] = {
    Failed: CheckOutcome.FAIL,
    ServerClosed: CheckOutcome.FAIL,
    ServerSilent: CheckOutcome.FAIL,
    NotServed: CheckOutcome.NOT_SERVED,
    NotPossible: CheckOutcome.NOT_RUN,
}


def run(
    checks: Sequence[Check], subject: ProbedServer, told: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """
    What *checks* say of *subject*, in their order.

    :param checks: each stands after the one that it needs.
    :param told: is called with each result, as soon as all before it are there.
    """
    results: dict[str, Result] = {}
    waiting: dict[str, Future[Result]] = {}
    slow = sum(check.slow for check in checks)
    with ThreadPoolExecutor(max_workers=max(slow, 1)) as threads:
        for check in checks:
            if not check.slow:
                results[check.id] = _run(check, subject, results)
            else:
                waiting[check.id] = threads.submit(_run, check, subject, dict(results))
        for check in checks:
            if check.slow:
                results[check.id] = waiting[check.id].result()
            told(results[check.id])
    return [results[check.id] for check in checks]


def _run(check: Check, subject: ProbedServer, results: dict[str, Result]) -> Result:
    needed = results.get(check.needs)
    if needed is not None and needed.verdict is not CheckOutcome.PASS:
        verdict = (
            CheckOutcome.NOT_SERVED if needed.verdict is CheckOutcome.NOT_SERVED else CheckOutcome.NOT_RUN
        )
        return Result(check, verdict, f"needs {check.needs}")
    try:
        return Result(check, CheckOutcome.PASS, check.run(subject) or "")
    except tuple(_VERDICTS) as problem:
        return Result(check, _VERDICTS[type(problem)], str(problem))
    except OSError as problem:  # of a socket of this machine
        return Result(check, CheckOutcome.NOT_RUN, str(problem))
