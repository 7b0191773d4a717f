"""Messages of syslog: see :mod:`socksproxy.logs.syslog`."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator

import pytest

from socksproxy.logs.syslog import DEBUG, INFO, header_for
from socksproxy.values.logs import log_place

#: The header of RFC 5424, section 6.
HEADER = re.compile(
    r"<(?P<pri>[0-9]{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<pid>[0-9]+) "
    r"(?P<id>[!-~]{1,32}) - "
)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_header() -> None:
    made = header_for(log_place("syslog:facility=local0:name=proxy"), "access")(INFO, 0.0, "now")
    found = HEADER.fullmatch(made)
    assert found is not None
    assert found.groupdict() == {
        "pri": str(16 * 8 + 6),
        "time": "now",
        "host": socket.gethostname(),
        "app": "proxy",
        "pid": str(os.getpid()),
        "id": "access",
    }


@pytest.mark.parametrize("name", ["", "two words", "möglich", "x" * 300])
def test_any_name_of_the_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert HEADER.fullmatch(header_for(log_place("syslog"), "access")(DEBUG, 0.0, "now"))


@pytest.mark.usefixtures("zone")
def test_old_header() -> None:
    """RFC 3164, section 4.1; a day of one digit has a space before it."""
    make = header_for(log_place("syslog:format=rfc3164"), "access")
    assert make(INFO, 1700000000.5, "") == f"<30>Nov 14 22:13:20 socksproxy[{os.getpid()}]: "
    assert make(DEBUG, 1699000000.5, "") == f"<31>Nov  3 08:26:40 socksproxy[{os.getpid()}]: "
