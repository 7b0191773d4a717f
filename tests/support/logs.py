"""What is logged while something is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import LogEvent, eventAsText, globalLogPublisher

#: To observers that are plain functions, as this project's are.
log_publisher: Any = globalLogPublisher


@contextmanager
def heard() -> Iterator[list[str]]:
    """The lines that socksproxy logs, tracebacks and all."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "socksproxy":
            lines.append(eventAsText(event, includeTimestamp=False, includeSystem=False))

    log_publisher.addObserver(observe)
    try:
        yield lines
    finally:
        log_publisher.removeObserver(observe)
