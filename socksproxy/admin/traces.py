"""
What one process answers to the questions about traces of its sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..session.registry import Registry
from ..session.trace import CannotTrace, Trace, Tracing

#: The questions: begin a trace, take what is new of it, end it.
BEGIN, TAKE, END = "trace_begin", "trace_take", "trace_end"

#: Bytes of what a process answers at once.
_MOST_TAKEN = 256 << 10


class TraceAnswers:
    """
    Answers the questions about traces in one process.

    :param sessions: the sessions of the process.
    """

    def __init__(self, sessions: Registry) -> None:
        self._tracing = Tracing(sessions)
        self._traces: dict[str, Trace] = {}

    @property
    def questions(self) -> dict[str, Callable[[Mapping[str, Any], list[bytes]], Any]]:
        """What answers, by the names of the questions."""
        return {BEGIN: self._begin, TAKE: self._take, END: self._end}

    def _begin(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Any:
        for name, trace in list(self._traces.items()):
            if trace.over and not trace.waiting:
                del self._traces[name]
        try:
            trace = self._tracing.begin(**arguments["filter"], seconds=arguments["seconds"])
        except CannotTrace as problem:
            return {"why": str(problem)}
        self._traces[arguments["name"]] = trace
        return {"why": None}

    def _take(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Any:
        trace = self._traces.get(arguments["name"])
        if trace is None:
            return {"over": True}
        parts += [line.rstrip(b"\n") for line in trace.take(_MOST_TAKEN)]
        return {"over": trace.over and not trace.waiting}

    def _end(self, arguments: Mapping[str, Any], parts: list[bytes]) -> Any:
        trace = self._traces.pop(arguments["name"], None)
        if trace is not None:
            self._tracing.end(trace)
        return {}
