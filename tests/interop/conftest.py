"""A real ``twistd socks`` and real origins, for real clients."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.names import NameServer
from tests.support.origin import HTTPOrigin, Origin, answer_at_the_end, echo
from tests.support.processes import PATIENCE, TWISTD, Program


class Proxy:
    """
    A running ``twistd socks``.

    :param environment: added to this process's own.
    :ivar port: where it listens.
    """

    def __init__(self, directory: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self._records = directory / "access.log"
        self._program = Program(
            [
                *TWISTD,
                *("-n", "--pidfile=", "socks", "--port", "0"),
                *("-l", str(self._records), "--log-format", "json"),
                *options,
            ],
            directory,
            environment,
        )
        self.wait_for = self._program.wait_for
        self.port = int(self._program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
        self.pid = self._program.process.pid

    def records(self) -> list[dict[str, Any]]:
        """The access records so far."""
        whole, _, _ = self._records.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def record_of(self, destination: str, **fields: object) -> dict[str, Any]:
        """The record of the session to *destination* that has these *fields*, as soon as it is written."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            there = [record for record in self.records() if record["destination"] == destination]
            for record in there:
                if fields.items() <= record.items():
                    return record
            time.sleep(0.02)
        raise AssertionError(f"no record of a session to {destination} with {fields}, but {there}")

    def record_after(self, number: int) -> dict[str, Any]:
        """The record that comes behind the first *number*, as soon as it is written."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            there = self.records()
            if len(there) > number:
                return there[number]
            time.sleep(0.02)
        raise AssertionError(f"no record came after {number}")

    def check_record(
        self, origin: Origin | HTTPOrigin, version: int, name: str | None = None, **fields: object
    ) -> None:
        """
        Wait for the record of the session that *origin* has seen last: it is granted, and true.

        :param version: the protocol's.
        :param name: what the client has asked for; None: the address.
        """
        self.record_of(
            _place(name or origin.host, origin.port),
            reached=_place(origin.host, origin.port),
            outgoing=_place(*origin.peers[-1]),
            version=version,
            command="CONNECT",
            reply=90 if version == 4 else 0,
            **fields,
        )

    def stop(self) -> None:
        """End it; whatever it said must not be a traceback."""
        self._program.stop()
        assert "Traceback" not in self._program.output, self._program.output
        assert "Unhandled" not in self._program.output, self._program.output


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One proxy for all: that sessions of one client never disturb another's is part of the test."""
    running = Proxy(tmp_path_factory.mktemp("proxy"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def own_names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that asks a DNS server of the tests, as ``--resolver dns:`` has it."""
    with NameServer({"dual.test": ["127.0.0.1", "::1"], "echo.test": ["127.0.0.1"]}) as server:
        running = Proxy(tmp_path_factory.mktemp("names"), "--resolver", f"dns:127.0.0.1:{server.port}")
        yield running
        running.stop()


@pytest.fixture(scope="session")
def web() -> Iterator[HTTPOrigin]:
    with HTTPOrigin() as origin:
        yield origin


@pytest.fixture(scope="session")
def web6() -> Iterator[HTTPOrigin]:
    with HTTPOrigin("::1") as origin:
        yield origin


@pytest.fixture
def echoes() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


@pytest.fixture
def echoes6() -> Iterator[Origin]:
    with Origin(echo, "::1") as origin:
        yield origin


@pytest.fixture
def answers() -> Iterator[Origin]:
    with Origin(answer_at_the_end) as origin:
        yield origin


@pytest.fixture
def answers6() -> Iterator[Origin]:
    with Origin(answer_at_the_end, "::1") as origin:
        yield origin
