"""The access log: see :mod:`socksproxy.logs.access_log`."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.logger import ILogObserver
from zope.interface.verify import verifyObject

from socksproxy.events import FIELDS
from socksproxy.logs.access_log import FORMATS, AccessLog, access_observer, values_of
from socksproxy.logs.sinks import WARN_EVERY
from socksproxy.wire.words import Version

from ..support.logs import EVENT, heard

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
VALUE = r'(?:-|[!#-<>-\[\]-~]+|"(?:[ !#-\[\]-~]|\\.)*")'
TEXT_LINE = re.compile(TIME + "".join(rf" {field}=({VALUE})" for field in FIELDS) + r"\n\Z")


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone that is not a whole number of hours west of UTC."""
    monkeypatch.setenv("TZ", "XXX+03:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The texts of what is logged beside the access log."""
    with heard() as lines:
        yield lines


@pytest.mark.usefixtures("zone")
def test_text(tmp_path: Path) -> None:
    """Filters such as fail2ban's match these lines: they must stay as they are."""
    path = tmp_path / "access.log"
    log = access_observer(str(path))
    log(EVENT)
    log(EVENT)
    log.close()
    assert path.read_text() == 2 * (
        "2023-11-14T18:43:20.125-03:30 client=192.0.2.1:5555 user=- method=- version=5 command=CONNECT "
        "destination=example.com:80 rule=web reached=93.184.216.34:80 outgoing=192.0.2.7:40000 via=- tries=- "
        "sticky=- upstream_reply=- announced=- "
        "strangers=- reply=0 sent=512 received=81920 datagrams_sent=- datagrams_received=- dropped=- "
        "handshake_seconds=0.001000 resolution_seconds=- connect_seconds=0.010000 "
        "session_seconds=1.500000 unique_id=- tls_name=- id=1700000000000.0.7 end=client "
        'ended="client reset"\n'
    )


@pytest.mark.usefixtures("zone")
def test_json(tmp_path: Path) -> None:
    """A program that reads the log finds every field, with null for what there is not."""
    path = tmp_path / "access.log"
    log = access_observer(str(path), "json")
    log(EVENT)
    log.close()
    record = json.loads(path.read_text())
    assert record == {
        "time": "2023-11-14T18:43:20.125-03:30",
        **{field: EVENT[field] for field in FIELDS},
    }
    assert tuple(record) == ("time", *FIELDS)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "-"),
        (0, "0"),
        (Version.SOCKS5, "5"),
        (1.5, "1.500000"),
        ({}, "-"),
        ({"denied": 3, "too_big": 1}, "denied:3,too_big:1"),
        ("-", '"-"'),
        ("", '""'),
        ("bob", "bob"),
        ("bob ended=client", '"bob ended=client"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("möglich", '"m\\u00f6glich"'),
    ],
)
def test_value_cannot_pretend(tmp_path: Path, value: object, word: str) -> None:
    """A user name that looks like other fields, or like another line, does not mislead who reads the log."""
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log({**EVENT, "user": value})
    log.close()
    matched = TEXT_LINE.match(path.read_text())
    assert matched is not None
    assert matched[FIELDS.index("user") + 1] == word


@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        {**EVENT, "ended": "client"},
        {**EVENT, "ended": "client", "version": Version.SOCKS4, "reply": None},
        {**EVENT, "ended": "client", "dropped": {"denied": 3}},
        {**EVENT, "ended": "client", "version": True},
        {**EVENT, "ended": "client", "user": "-"},
        {**EVENT, "ended": "client", "user": "a\nb"},
        {**EVENT, "ended": "client", "user": "a\n"},
        {**EVENT, "ended": "client", "user": ""},
        {"log_time": 0.5, "client": "unix", "ended": "client"},
        {"log_time": 0.5, "ended": "client"},
        {"log_time": 0.5},
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_the_quick_way_is_as_the_long_one(
    event: dict[str, Any], format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is a template for its line makes no difference to it."""
    lines = FORMATS[format]
    line = lines("now", values_of(event))
    monkeypatch.setattr(lines, "_shape", lambda kinds: None)
    assert line == lines("now", values_of(event))


def test_most_lines_are_made_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what keeps the rate of new connections where it is without a log."""

    def none_is_needed(when: str, values: object) -> str:
        raise AssertionError(values)

    usual = {**EVENT, "ended": "client", "version": Version.SOCKS5, "user": "fred"}
    for lines in FORMATS.values():
        monkeypatch.setattr(lines, "_line", none_is_needed)
        lines("now", values_of(usual))
        other = {**usual, "destination": "192.0.2.9:80", "resolution_seconds": 0.5, "user": None}
        lines("now", values_of(other))
        with pytest.raises(AssertionError):
            lines("now", values_of({**usual, "user": "two words"}))


events = st.fixed_dictionaries(
    {"log_time": st.floats(min_value=0, max_value=4e9)},
    optional={
        field: st.none()
        | st.text()
        | st.integers(min_value=0, max_value=2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        for field in FIELDS
    },
)


@given(st.lists(events, min_size=1, max_size=5))
def test_any_event_is_one_line(some: list[dict[str, Any]]) -> None:
    """Whatever a client sends, one session is one line, and it can be read back."""
    with tempfile.TemporaryDirectory() as directory:
        for format in ("text", "json"):
            path = Path(directory, format)
            log = AccessLog(str(path), format)
            for event in some:
                log(event)
            log.close()
            lines = path.read_bytes().decode("ascii").splitlines(keepends=True)
            assert len(lines) == len(some)
            for event, line in zip(some, lines, strict=True):
                if format == "text":
                    assert TEXT_LINE.match(line)
                else:
                    record = json.loads(line)
                    assert {field: record[field] for field in FIELDS} == {
                        field: event.get(field) for field in FIELDS
                    }


def test_several_processes_append(tmp_path: Path) -> None:
    """Workers share the file: none overwrites what another has written."""
    path = tmp_path / "access.log"
    path.write_text("older\n")
    first, second = AccessLog(str(path), "json"), AccessLog(str(path), "json")
    first(EVENT)
    second(EVENT)
    first(EVENT)
    first.close()
    second.close()
    assert path.read_text().splitlines()[0] == "older"
    assert [json.loads(line)["reply"] for line in path.read_text().splitlines()[1:]] == [0, 0, 0]


def test_each_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that follows the file never sees half a line."""
    written = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    log = AccessLog(str(tmp_path / "access.log"))
    monkeypatch.setattr(os, "write", write)
    log(EVENT)
    monkeypatch.undo()
    log.close()
    assert len(written) == 1
    assert written[0].endswith(b"\n")


def test_file_is_not_for_everybody(tmp_path: Path) -> None:
    """Who visits what is nobody else's business."""
    path = tmp_path / "access.log"
    AccessLog(str(path)).close()
    assert path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("path", ["missing/access.log", "."])
def test_cannot_open(tmp_path: Path, path: str) -> None:
    """The operator learns at the start, not when a record is missed."""
    with pytest.raises(OSError, match="directory"):
        access_observer(str(tmp_path / path))


def test_unknown_format(tmp_path: Path) -> None:
    """A misspelt format is not silently another one."""
    with pytest.raises(ValueError, match="xml"):
        access_observer(str(tmp_path / "access.log"), "xml")
    assert not (tmp_path / "access.log").exists()


def test_moved_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log rotation: lines go on in a new file, also after a change of directory."""
    monkeypatch.chdir(tmp_path)
    log = AccessLog("access.log", "json")
    log(EVENT)
    monkeypatch.chdir("/")
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    log(EVENT)
    assert log.reopen() is None
    log(EVENT)
    log.close()
    assert len((tmp_path / "access.log.1").read_text().splitlines()) == 2
    assert len((tmp_path / "access.log").read_text().splitlines()) == 1


def test_cannot_reopen(tmp_path: Path, warnings: list[str]) -> None:
    """A rotation that goes wrong loses no lines."""
    directory = tmp_path / "logs"
    directory.mkdir()
    log = AccessLog(str(directory / "access.log"), "json")
    directory.rename(tmp_path / "moved")
    problem = log.reopen()
    log(EVENT)
    log.close()
    assert len((tmp_path / "moved" / "access.log").read_text().splitlines()) == 1
    assert len(warnings) == 1
    assert "the old file goes on: No such file or directory" in warnings[0]
    assert problem is not None
    assert problem in warnings[0]


def test_closed_descriptors(tmp_path: Path) -> None:
    """Rotating every night for years leaves no descriptor behind."""
    before = os.listdir("/proc/self/fd")
    log = AccessLog(str(tmp_path / "access.log"))
    for _ in range(5):
        log.reopen()
    log.close()
    log.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    """A full disk neither stops the proxy nor fills its log with warnings; what is lost is told."""
    now = [1000.0]
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(descriptor: int, data: bytes) -> int:
        raise full

    path = tmp_path / "access.log"
    log = AccessLog(str(path), clock=lambda: now[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        for _ in range(10):
            log(EVENT)
        assert len(warnings) == 1
        now[0] += WARN_EVERY
        log(EVENT)
    log(EVENT)
    log(EVENT)
    log.close()
    assert [text.removeprefix(str(path)) for text in warnings] == [
        " cannot be written, 1 lines are lost: No space left on device",
        " cannot be written, 11 lines are lost: No space left on device",
        " is written again, 11 lines are lost",
    ]
    assert len(path.read_text().splitlines()) == 2


def test_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    """After half a line was all that the disk could take, the next line is whole."""
    write = os.write
    log = AccessLog(str(tmp_path / "access.log"), "json")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        log(EVENT)
    log(EVENT)
    log(EVENT)
    log.close()
    torn, whole, last = (tmp_path / "access.log").read_text().splitlines()
    assert len(torn) == 20
    assert json.loads(whole) == json.loads(last)
    assert "only a part" in warnings[0]
    assert len(warnings) == 2


def test_slow_reader_of_a_fifo(tmp_path: Path, warnings: list[str]) -> None:
    """A log reader that stands still does not stop the proxy."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path))
    for _ in range(1000):
        log(EVENT)
    log.close()
    os.close(reader)
    assert len(warnings) == 1


def test_interface(tmp_path: Path) -> None:
    """It can be given to any Twisted log publisher."""
    log = AccessLog(str(tmp_path / "access.log"))
    assert verifyObject(ILogObserver, log)
    log.close()
