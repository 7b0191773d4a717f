"""
Workers are killed, again and again, while they serve: what has been counted, and what stays of them.

It takes six of them; with SOCKSPROXY_LONG in the environment, as by ``nox -s long``, 200.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles

import pytest

from ..support.admin import asks
from ..support.origin import Origin, echo
from ..support.processes import TWISTD, Program
from ..support.workers import LISTENING, Load, descriptors_of, until, workers_of

pytest.importorskip("prometheus_client")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes in /proc"),
]

KILLS = 200 if os.environ.get("SOCKSPROXY_LONG") else 6

#: A worker has proved itself at once: the next one starts without a delay.
PROVED = "import socksproxy.workers.states as states; states.PROVED = 0.0\n"

CONFIG = """
[metrics]

[[admin.listener]]
endpoint = "unix:admin.sock"
"""

#: The names of what never goes back.
_COUNTER = re.compile(r"^(\w+(?:_total|_bucket|_count|_sum)(?:\{.*\})?) (\S+)$", re.MULTILINE)


class Scrapes:
    """
    Scrapes a server, and sees that no counter goes back.

    :ivar seconds: how long each scrape took.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.counters: dict[str, float] = {}
        self.seconds: list[float] = []

    def scrape(self) -> str:
        began = time.monotonic()
        told = asks(self._path, "GET", "/metrics")
        self.seconds.append(time.monotonic() - began)
        assert told.status == 200
        text = told.data.decode()
        now = {name: float(value) for name, value in _COUNTER.findall(text)}
        back = {
            name: (value, now.get(name)) for name, value in self.counters.items() if value > now.get(name, -1)
        }
        assert not back
        self.counters = now
        return text


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as server:
        yield server


def gauge(text: str, name: str) -> float:
    """The sum over all series of *name*."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


def test_workers_are_killed(
    tmp_path: Path,
    start: Callable[..., Program],
    origin: Origin,
    record_property: Callable[[str, object], None],
) -> None:
    """No counter goes back, gauges of the dead are gone, no file or descriptor stays, a scrape is short."""
    (tmp_path / "socks.toml").write_text(CONFIG)
    beginning = [sys.executable, "-c", PROVED + TWISTD[2], "-n", "--pidfile="]
    program = start([*beginning, "socks", "-p", "0", "--workers", "2", "--config", "socks.toml"])
    port = int(program.wait_for(LISTENING)[1])
    supervisor = program.process.pid
    scrapes = Scrapes(tmp_path / "admin.sock")
    scrapes.scrape()
    load = Load(port, origin.port)
    load.start()
    until(lambda: load.outcomes["served"])
    files, descriptors = sorted(tmp_path.iterdir()), len(descriptors_of(supervisor))

    def ready() -> int:
        """How many workers have been ready so far."""
        time.sleep(0.1)
        # A machine that is busy for ten seconds has the server cut the scrape off.
        with suppress(ConnectionResetError):
            scrapes.scrape()
        program.read()
        return program.output.count("accepts clients")

    for number in range(2, 2 + KILLS):
        until(lambda wanted=number: ready() == wanted)  # type: ignore[misc]
        os.kill(random.choice(workers_of(supervisor)), signal.SIGKILL)
    until(lambda: ready() == 2 + KILLS)
    load.stopping = True
    load.join()
    until(lambda: gauge(scrapes.scrape(), "socksproxy_sessions") == 0)
    of_all = list(scrapes.seconds)
    for _ in range(20):
        text = scrapes.scrape()
    # The supervisor kills a worker that a busy machine keeps from starting, too.
    assert gauge(text, r'socksproxy_worker_deaths_total\{how="signal"\}') >= KILLS
    assert gauge(text, r'socksproxy_workers\{state="running"\}') == 2
    # What the dead had counted since they last wrote it down is lost: less than a second of each.
    assert gauge(text, "socksproxy_connections_total") > 0
    assert sorted(tmp_path.iterdir()) == files
    until(lambda: len(descriptors_of(supervisor)) == descriptors)
    # What else the machine is at can make some of them slow.
    assert min(scrapes.seconds[-20:]) < 0.05
    record_property("kills", KILLS)
    record_property("sessions", load.outcomes["served"])
    found = [median(of_all), quantiles(of_all, n=100)[-1], max(of_all)]
    record_property(
        "scrapes", "{}, median {:.4f} s, p99 {:.4f} s, longest {:.4f} s".format(len(of_all), *found)
    )
    assert "Traceback" not in program.output
