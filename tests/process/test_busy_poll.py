"""``--busy-poll`` in processes: they serve clients, follow a reload, and sleep while nothing comes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.workers import LISTENING, connected, echoes, until

if sys.platform != "linux":
    pytest.skip("the engine is Linux's", allow_module_level=True)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


def processor_time(pid: int) -> float:
    """The seconds of processor time of the process and its children that run."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(processor_time, map(int, children)))


def rests(pid: int) -> bool:
    """Whether the processes take next to no processor time in a second."""
    before = processor_time(pid)
    time.sleep(1)
    return processor_time(pid) - before < 0.1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_idle_server(twistd: Callable[..., Program], tmp_path: Path, origin: Origin, workers: str) -> None:
    """The server sleeps beside an open session, too, as soon as that has nothing to say."""
    config = tmp_path / "socks.toml"
    config.write_text("[listeners]\nport = 0\n[workers]\nbusy-poll = 1000\n")
    program = twistd("socks", "--config", str(config), "--workers", workers)
    port = int(program.wait_for(LISTENING)[1])
    with connected(port, origin.port) as client:
        for _ in range(200):
            assert echoes(client)
        # Not at once: the other worker may still start.
        until(lambda: rests(program.process.pid))
        config.write_text("[listeners]\nport = 0\n[workers]\nbusy-poll = 20\n")
        program.process.send_signal(signal.SIGHUP)
        program.wait_for("reloaded")
        assert echoes(client)
