"""
From installation to a board with live figures, in the ten commands of ``docs/operations.rst``.

They are run as they are, with other ports, a destination on this machine in the place of example.com, and
without the installation of Prometheus, which is there. Grafana is not run: Prometheus answers in its place.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs import DOCS, ROOT, blocks
from tests.support.programs import require

from .test_prometheus import fetched, free_port

#: Seconds for each command; pip has to download.
PATIENCE = 300

pytestmark = pytest.mark.slow


def ten_commands() -> list[str]:
    block = next(
        each for each in blocks(DOCS / "operations.rst", ".. code-block:: console") if "venv" in each
    )
    return [line[2:] for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory with the source, where daemons are ended."""
    for name in ("socksproxy", "twisted", "docs", "setup.py", "pyproject.toml", "README.rst", "LICENSE"):
        (tmp_path / name).symlink_to(ROOT / name)
    yield tmp_path
    file = tmp_path / "twistd.pid"
    if file.exists():
        os.kill(int(file.read_text()), signal.SIGTERM)


def test_ten_commands(directory: Path) -> None:
    """Each of them works, and at the end there are figures, on both boards."""
    require("prometheus")
    require("curl")
    commands = ten_commands()
    assert len(commands) == 10
    ports = {old: str(free_port()) for old in ("1080", "9095", "9091")}
    (directory / "page").mkdir()
    (directory / "page" / "index.html").write_text("Here I am.")
    web = free_port()
    origin = subprocess.Popen(
        ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "page", str(web)],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ended = [origin]
    try:
        for command in commands:
            for old, new in ports.items():
                command = re.sub(rf"\b{old}\b", new, command)
            command = command.replace("https://example.com/", f"http://127.0.0.1:{web}/")
            command = command.replace("sudo apt-get install -y prometheus", "prometheus --version")
            if command.startswith("socks/bin/twistd"):
                command += f" --port {ports['1080']}"
            if command.startswith("prometheus --config"):
                _scrape_soon(directory, ports["9095"])
                command = re.sub(r"=docs\S+", "=prometheus.yml", command)
                words = command.rstrip("& ").split()
                ended.append(subprocess.Popen(words, cwd=directory, stderr=subprocess.DEVNULL))
                continue
            said = _done(command, directory)
        assert float(re.findall(r"=> (\S+) @", said)[0]) > 0
        assert b"<html" in fetched(f"http://127.0.0.1:{ports['9095']}/").lower()
    finally:
        for program in ended:
            program.kill()
            program.wait()


def _scrape_soon(directory: Path, port: str) -> None:
    """The example's file, which scrapes every second here."""
    examples = DOCS / "examples" / "prometheus"
    shutil.copy(examples / "alerts.yml", directory)
    text = (examples / "prometheus.yml").read_text("utf-8")
    (directory / "prometheus.yml").write_text(text.replace("9095", port).replace("15s", "1s"), "utf-8")


def _done(command: str, directory: Path) -> str:
    """What *command* says when it has worked; some need what the one before has only begun."""
    deadline = time.monotonic() + PATIENCE
    while True:
        # Not our variables: who reads the page has none of them.
        environment = {
            "HOME": str(directory),
            **{
                name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("PIP_")
            },
        }
        done = subprocess.run(
            command, shell=True, cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        waits = command.startswith(("curl", "promtool"))
        found = "=>" in done.stdout or not command.startswith("promtool")
        if done.returncode == 0 and found:
            return done.stdout
        assert waits, f"{command}\n{done.stdout}{done.stderr}"
        assert time.monotonic() < deadline, f"{command}\n{done.stdout}{done.stderr}"
        time.sleep(0.5)
