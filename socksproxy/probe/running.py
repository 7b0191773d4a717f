"""Runs the checks, in their order; those that only wait run beside the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from .link import Ended, Silent
from .outcome import Check, Failed, NotRun, NotServed, Result, Verdict
from .subject import Subject

_VERDICTS: dict[type[Exception], Verdict] = {
    Failed: Verdict.FAIL,
    Ended: Verdict.FAIL,
    Silent: Verdict.FAIL,
    NotServed: Verdict.NOT_SERVED,
    NotRun: Verdict.NOT_RUN,
}


def run(
    checks: Sequence[Check], subject: Subject, told: Callable[[Result], None] = lambda result: None
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


def _run(check: Check, subject: Subject, results: dict[str, Result]) -> Result:
    needed = results.get(check.needs)
    if needed is not None and needed.verdict is not Verdict.PASS:
        verdict = Verdict.NOT_SERVED if needed.verdict is Verdict.NOT_SERVED else Verdict.NOT_RUN
        return Result(check, verdict, f"needs {check.needs}")
    try:
        return Result(check, Verdict.PASS, check.run(subject) or "")
    except tuple(_VERDICTS) as problem:
        return Result(check, _VERDICTS[type(problem)], str(problem))
    except OSError as problem:  # of a socket of this machine
        return Result(check, Verdict.NOT_RUN, str(problem))
