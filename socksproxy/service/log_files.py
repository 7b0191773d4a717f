"""The logs of a plan come into force, and those of another one go."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import globalLogPublisher

from ..config.plan import Plan
from ..logs.server_log import switch


def use_server_log(plan: Plan) -> None:
    """Have the server's own log go where the *plan* says."""
    log, before = plan.server_log, switch.log
    switch.log = log or before
    if log is not None and before is None and not switch.chosen:
        globalLogPublisher.addObserver(switch)
    if log is not None and before is not None and log is not before:
        before.close()


def reopen_logs(plan: Plan) -> list[str]:
    """
    The files of the logs of the *plan*, which is in force, have been moved away.

    :returns: which cannot be opened again, and why.
    """
    logs: list[Any] = [plan.access_log, plan.server_log]
    problems = [log.reopen() for log in logs if log is not None]
    return [problem for problem in problems if problem is not None]


def close_access_log(old: Plan, new: Plan) -> None:
    """Close the access log of the plan *old*, unless it is *new*'s, too."""
    if old.access_log is not None and old.access_log is not new.access_log:
        old.access_log.close()


def abandon_logs(plan: Plan, present: Plan) -> None:
    """Close the logs of the *plan*, which does not come into force; the *present* one stays."""
    close_access_log(plan, present)
    log = plan.server_log
    if log is not None and log is not switch.log:
        log.close()


def close_logs(plan: Plan) -> Deferred[Any]:
    """
    Close the logs of the *plan*, which was in force.

    :returns: fires when their last lines have been sent.
    """
    logs: list[Any] = [plan.access_log]
    if switch.log is not None and not switch.chosen:
        globalLogPublisher.removeObserver(switch)
        logs.append(switch.log)
        switch.log = None
    return DeferredList([log.close() for log in logs if log is not None])
