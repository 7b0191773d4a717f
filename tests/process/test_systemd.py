"""The service as systemd runs it: what a fake service manager hears, and the units."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.service_manager import ServiceManager
from ..support.workers import LISTENING, connected, until, workers_of

UNITS = Path(__file__).parents[2] / "systemd"

#: The worst score of "systemd-analyze security" that the units may have.
EXPOSURE = 1.5


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    made = ServiceManager(tmp_path)
    yield made
    made.close()


Start = Callable[..., Program]


@pytest.fixture
def start(twistd: Callable[..., Program]) -> Start:
    """``start(environment, ...)``: a server at a port of the kernel's choice."""

    def begin(environment: dict[str, str], *arguments: str) -> Program:
        return twistd("socks", "-p", "0", *arguments, environment=environment)

    return begin


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_life(workers: str, start: Start, manager: ServiceManager) -> None:
    """READY comes when clients are accepted, RELOADING and READY around a reload, STOPPING at the end."""
    program = start(manager.environment(), "--workers", workers, "--drain", "20")
    ready = manager.until("READY=1")
    assert ready == 0
    pid = program.process.pid
    if workers == "2":
        assert len(re.findall("accepts clients", program.wait_for("(?s)" + "accepts clients.*" * 2)[0])) == 2
    port = int(program.wait_for(LISTENING)[1])
    with Origin(echo) as origin:
        client = connected(port, origin.port)
        os.kill(pid, signal.SIGHUP)
        reloading = manager.until("RELOADING=1")
        assert manager.heard[reloading + 1].startswith("MONOTONIC_USEC=")
        again = manager.until("READY=1", reloading)
        os.kill(pid, signal.SIGTERM)
        stopping = manager.until("STOPPING=1", again)
        assert manager.heard[stopping + 1] == "EXTEND_TIMEOUT_USEC=30000000"
        client.close()
    assert program.wait() == -signal.SIGTERM
    assert "WATCHDOG=1" not in manager.listen()


def test_a_listener_that_fails_is_not_ready(start: Start, manager: ServiceManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = start(manager.environment(), "-p", str(taken.getsockname()[1]))
        assert program.wait() == 1
    assert "READY=1" not in manager.listen()


def test_a_worker_that_hangs(start: Start, manager: ServiceManager) -> None:
    """Only that worker is replaced, and the watchdog goes on hearing of the service."""
    program = start(manager.environment(watchdog=4.5), "--workers", "2")
    manager.until("WATCHDOG=1")
    port = int(program.wait_for(LISTENING)[1])
    stuck, other = workers_of(program.process.pid)
    os.kill(stuck, signal.SIGSTOP)
    said = program.wait_for(r"worker (\d) has shown no sign of life for 1.5 seconds, and is killed")
    program.wait_for(rf"worker {said[1]} \(process {stuck}\) has ended: signal SIGKILL")
    until(lambda: len(workers_of(program.process.pid)) == 2)
    assert other in workers_of(program.process.pid)
    assert stuck not in workers_of(program.process.pid)
    with Origin(echo) as origin, connected(port, origin.port):
        heard = len(manager.listen())
        manager.until("WATCHDOG=1", heard)
        manager.until("STATUS=1 sessions, 2 workers", heard)
    assert program.output.count("no sign of life") == 1


def test_a_supervisor_that_hangs(start: Start, manager: ServiceManager) -> None:
    """The watchdog hears nothing meanwhile; afterwards no worker is killed for the supervisor's sleep."""
    program = start(manager.environment(watchdog=3.0), "--workers", "2")
    manager.until("WATCHDOG=1")
    before = workers_of(program.process.pid)
    os.kill(program.process.pid, signal.SIGSTOP)
    time.sleep(0.1)
    heard = len(manager.listen())
    assert len(manager.listen(2.0)) == heard
    os.kill(program.process.pid, signal.SIGCONT)
    manager.until("WATCHDOG=1", manager.until("WATCHDOG=1", heard) + 1)
    assert workers_of(program.process.pid) == before
    assert "no sign of life" not in program.output


def test_workers_do_not_speak_for_the_service(start: Start, manager: ServiceManager) -> None:
    program = start(manager.environment(watchdog=30.0), "--workers", "2")
    manager.until("READY=1")
    for pid in workers_of(program.process.pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment


# The units. A booted systemd is not at hand, so they are analysed.


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def analysed(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, whose programs are there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("socksproxy", "twistd"):
        (programs / name).symlink_to(sys.executable)
    directory = tmp_path / "units"
    shutil.copytree(UNITS, directory)
    service = directory / "socksproxy.service"
    text = service.read_text()
    assert "/opt/socksproxy/bin/" in text
    # The man pages are not installed here.
    text = re.sub("^Documentation=.*\n", "", text, flags=re.M)
    service.write_text(text.replace("/opt/socksproxy/bin/", f"{programs}/"))
    return directory


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", ["socksproxy.service", "socksproxy.socket"])
def test_units_are_right(units: Path, unit: str) -> None:
    """systemd knows every key, and what it reads makes sense."""
    assert analysed(units, "systemd-analyze", "verify", f"./{unit}") == ""


@needs("systemd-analyze")
@pytest.mark.parametrize("pam", [False, True])
def test_units_expose_little(units: Path, pam: bool) -> None:
    if not pam:
        shutil.rmtree(units / "socksproxy.service.d")
    said = analysed(
        units, "systemd-analyze", "security", "--offline=true", "--no-pager", "./socksproxy.service"
    )
    found = re.search(r"Overall exposure level for socksproxy.service: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= EXPOSURE
    assert ("✗ User" in said) is pam


@needs("systemd-sysusers")
@needs("systemd-tmpfiles")
def test_users_and_directories(tmp_path: Path) -> None:
    """The user is made, and the directories are that user's."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make files of other users")
    (tmp_path / "etc").mkdir()
    users, files = (next((UNITS / kind).iterdir()) for kind in ("sysusers.d", "tmpfiles.d"))
    analysed(tmp_path, "systemd-sysusers", f"--root={tmp_path}", str(users))
    assert "socksproxy:" in (tmp_path / "etc/passwd").read_text()
    analysed(tmp_path, "systemd-tmpfiles", f"--root={tmp_path}", "--create", str(files))
    for name in ("etc", "run", "var/lib", "var/log"):
        assert (tmp_path / name / "socksproxy").stat().st_mode & 0o777 == 0o750


@needs("logrotate")
def test_logrotate(tmp_path: Path) -> None:
    """logrotate finds no mistake. Its user and its logs are not here."""
    text = (UNITS / "logrotate.d" / "socksproxy").read_text()
    text = text.replace("/var/log/socksproxy", str(tmp_path)).replace("su socksproxy socksproxy", "")
    (tmp_path / "access.log").write_text("a line\n")
    tmp_path.chmod(0o755)
    config = tmp_path / "rotate"
    config.write_text(text)
    config.chmod(0o644)
    said = analysed(tmp_path, "logrotate", "--debug", f"--state={tmp_path}/state", str(config))
    assert "error" not in said.replace("--debug", "")
    assert "--signal=USR1 socksproxy.service" in said or "access.log" in said
