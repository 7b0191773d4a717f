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


EVENT: dict[str, Any] = {
    "log_time": 1700000000.125,
    "log_namespace": "socksproxy.access",
    "client": "192.0.2.1:5555",
    "user": None,
    "method": None,
    "version": 5,
    "command": "CONNECT",
    "destination": "example.com:80",
    "rule": "web",
    "reached": "93.184.216.34:80",
    "outgoing": "192.0.2.7:40000",
    "via": None,
    "tries": None,
    "sticky": None,
    "upstream_reply": None,
    "announced": None,
    "strangers": None,
    "reply": 0,
    "sent": 512,
    "received": 81920,
    "datagrams_sent": None,
    "datagrams_received": None,
    "dropped": None,
    "handshake_seconds": 0.001,
    "resolution_seconds": None,
    "connect_seconds": 0.01,
    "session_seconds": 1.5,
    "unique_id": None,
    "tls_name": None,
    "id": "1700000000000.0.7",
    "end": "client",
    "ended": "client reset",
}
