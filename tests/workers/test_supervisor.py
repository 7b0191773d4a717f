"""``twistd socks --workers N``, as processes: see :mod:`socksproxy.workers`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from socksproxy.app import makeService
from socksproxy.workers.states import WorkerState
from socksproxy.workers.supervisor import SupervisorService

from ..support.certificates import self_signed
from ..support.origin import Origin
from ..support.processes import PATIENCE, PYTHON_M_TWISTED, TWIST, TWISTD, Program
from ..support.service import SYSTEMD, parsed
from ..support.workers import (
    LISTENING,
    Load,
    connected,
    descriptors_of,
    echoes,
    python_of_others,
    received,
    refuses,
    server_of,
    until,
    with_each,
    with_python,
    workers_of,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes in /proc")

IN_FRONT = {
    "twistd -n": (*TWISTD, "-n", "--pidfile="),
    "twist": (*TWIST, "--log-format=text"),
    "python -m twisted": (*PYTHON_M_TWISTED, "--log-format=text"),
}


def ended(pid: int) -> bool:
    """Whether a process is gone, or would be if its parent looked."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("name", IN_FRONT)
def test_all_serve(
    name: str, start: Callable[..., Program], origin: Origin, clients: list[socket.socket]
) -> None:
    """Every worker serves clients of the one port, however it is started, and all are gone at its end."""
    program = start([*IN_FRONT[name], "socks", "-p", "0", "--workers", "2"])
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    assert len(pids) == 2
    assert len(re.findall(r"worker \d \(process \d+\) accepts clients", program.output)) == 2
    by_worker = with_each(port, origin, pids, clients)
    assert all(echoes(client) for client in clients)
    assert len(by_worker) == 2
    assert program.stop() == -signal.SIGTERM
    assert all(map(ended, pids))
    assert program.output.count("listening on") == 1
    assert "Traceback" not in program.output
    with pytest.raises(ConnectionRefusedError):
        connected(port, origin.port)


def test_one_is_no_supervisor(twistd: Callable[..., Program]) -> None:
    """With one worker there is one process, as without the option."""
    program = twistd("socks", "-p", "0", "--workers", "1")
    program.wait_for(LISTENING)
    assert workers_of(program.process.pid) == []


@pytest.mark.parametrize(("name", "epolls"), [("epoll", 2), ("poll", 1), ("select", 1), ("asyncio", 2)])
def test_reactor_is_passed_on(name: str, epolls: int, start: Callable[..., Program], origin: Origin) -> None:
    """A worker's reactor is the one that was asked for."""
    program = start([*TWISTD, "-r", name, "-n", "--pidfile=", "socks", "-p", "0", "--workers", "2"])
    port = int(program.wait_for(LISTENING)[1])
    with connected(port, origin.port) as client:
        assert echoes(client)
    for pid in workers_of(program.process.pid):
        # One is the relay engine's, which holds the one of the epoll reactor.
        assert descriptors_of(pid).count("anon_inode:[eventpoll]") == epolls
    assert program.stop() == -signal.SIGTERM
    assert "Traceback" not in program.output


def test_killed_under_load(
    twistd: Callable[..., Program],
    origin: Origin,
    clients: list[socket.socket],
    record_property: Callable[[str, object], None],
) -> None:
    """
    A worker dies: the other's sessions go on, nobody is refused, and it is replaced.

    Only sessions that it had itself can fail: one of each that load it.
    """
    program = twistd("socks", "-p", "0", "--workers", "2")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    by_worker = with_each(port, origin, pids, clients)
    loads = [Load(port, origin.port) for _ in range(8)]
    for load in loads:
        load.start()
    until(lambda: sum(load.outcomes["served"] for load in loads) > 200)
    victim, other = pids
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    program.wait_for(r"worker 1 \(process \d+\) has ended: signal SIGKILL; another starts at once")
    program.wait_for(r"(?s)has ended: signal SIGKILL.*accepts clients")
    record_property("seconds_until_back", round(time.monotonic() - killed, 3))
    served = sum(load.outcomes["served"] for load in loads)
    until(lambda: sum(load.outcomes["served"] for load in loads) > served + 200)
    for load in loads:
        load.stopping = True
    for load in loads:
        load.join(PATIENCE)
    outcomes = sum((load.outcomes for load in loads), Counter[str]())
    record_property("outcomes", dict(outcomes))
    record_property("longest_session_seconds", round(max(load.longest for load in loads), 3))
    assert all(echoes(client) for client in by_worker[other])
    assert outcomes["ConnectionRefusedError"] == 0
    assert outcomes["TimeoutError"] == 0
    assert sum(outcomes.values()) - outcomes["served"] <= len(loads)
    # The replacement serves as well.
    others = by_worker[other]
    by_worker = with_each(port, origin, workers_of(program.process.pid), clients)
    assert victim not in by_worker
    assert all(echoes(client) for client in others)


def test_supervisor_killed(
    twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]
) -> None:
    """Without a supervisor there are no workers, however it ended; what they are at is finished."""
    program = twistd("socks", "-p", "0", "--workers", "2", "--drain", "600")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    by_worker = with_each(port, origin, pids, clients)
    for client in by_worker[pids[0]]:
        client.close()
    program.process.kill()
    until(lambda: ended(pids[0]))
    assert not ended(pids[1])
    assert all(echoes(client) for client in by_worker[pids[1]])
    until(lambda: refuses(port))
    for client in by_worker[pids[1]]:
        client.close()
    until(lambda: ended(pids[1]))


def test_drains(twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]) -> None:
    """SIGTERM: nobody is accepted, relays go on, and the last one's end is the end."""
    program = twistd("socks", "-p", "0", "--workers", "2", "--drain", "600")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    with_each(port, origin, pids, clients)
    program.process.terminate()
    until(lambda: refuses(port))
    assert all(echoes(client) for client in clients)
    assert program.process.poll() is None
    for client in clients:
        client.close()
    assert program.wait() == -signal.SIGTERM
    assert all(map(ended, pids))
    assert "Traceback" not in program.output


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal(
    second: signal.Signals,
    tmp_path: Path,
    twistd: Callable[..., Program],
    origin: Origin,
    clients: list[socket.socket],
) -> None:
    """Who will not wait says so again; the sessions' lines are in the access log all the same."""
    program = twistd("socks", "-p", "0", "--workers", "2", "--drain", "600", "-l", "access.log")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    with_each(port, origin, pids, clients)
    program.process.terminate()
    program.wait_for("Received SIGTERM")
    program.process.send_signal(second)
    assert program.wait() == -signal.SIGTERM
    assert all(map(ended, pids))
    assert "Traceback" not in program.output
    assert "is killed" not in program.output
    assert (tmp_path / "access.log").read_text().count(" ended=aborted\n") == len(clients)


def test_live_sessions(twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]) -> None:
    """SIGUSR2 to the supervisor: each worker writes its sessions, whose ids have its own number."""
    program = twistd("socks", "-p", "0", "--workers", "2")
    port = int(program.wait_for(LISTENING)[1])
    with_each(port, origin, workers_of(program.process.pid), clients)
    program.process.send_signal(signal.SIGUSR2)
    generations = {
        program.wait_for(rf"session id=(\d+)\.{worker}\.\d+ client=\S+ user=- phase=relaying")[1]
        for worker in (1, 2)
    }
    assert len(generations) == 1
    program.process.terminate()
    assert program.wait() == -signal.SIGTERM


def test_signal_to_all(twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]) -> None:
    """systemd and terminals signal every process: that is one signal, not two, for each."""
    program = twistd("socks", "-p", "0", "--workers", "2", "--drain", "600")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    with_each(port, origin, pids, clients)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        for pid in pids:
            os.kill(pid, number)
    program.process.terminate()
    program.wait_for("Received SIGTERM")
    assert all(echoes(client) for client in clients)
    for client in clients:
        client.close()
    assert program.wait() == -signal.SIGTERM
    assert "Traceback" not in program.output


def test_worker_terminated(
    twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]
) -> None:
    """A worker's own SIGTERM is a way to have a fresh one without cutting anybody off."""
    program = twistd("socks", "-p", "0", "--workers", "2", "--drain", "600")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    by_worker = with_each(port, origin, pids, clients)
    os.kill(pids[1], signal.SIGTERM)

    def served() -> bool:
        # Who was about to make a request to that worker is closed, and comes again.
        with contextlib.suppress(ConnectionError, EOFError), connected(port, origin.port) as client:
            return echoes(client)
        return False

    for _ in range(20):
        until(served)
    assert all(echoes(client) for client in clients)
    for client in by_worker[pids[1]]:
        client.close()
    program.wait_for(r"worker 2 \(process \d+\) has ended: exit status 0; another starts at once")
    program.wait_for(r"(?s)has ended: exit status 0.*worker 2 \(process \d+\) accepts clients")
    assert all(echoes(client) for client in by_worker[pids[0]])


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_starts_again(origin: Origin) -> None:
    """In a program that runs already it starts without holding that up; and stopped, it can start again."""
    service = makeService(parsed("-p", "0", "--workers", "2", "--max-sessions", "5", reactor=reactor))
    assert isinstance(service, SupervisorService)
    for _ in range(2):
        service.startService()
        (port,) = [port.getHost().port for port in service.ports]  # type: ignore[attr-defined]
        with await deferToThread(connected, port, origin.port) as client:
            assert await deferToThread(echoes, client)
        while any(worker.state is not WorkerState.RUNNING for worker in service.workers):
            await deferLater(reactor, 0.01)
        pids = [worker.process.pid for worker in service.workers if worker.process is not None]
        assert len(set(pids)) == 2
        await service.stopService()
        assert all(pid is not None and ended(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_start(number: signal.Signals, tmp_path: Path, start: Callable[..., Program]) -> None:
    """Ctrl-C while workers take their time to start is the end, and no fault."""
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\necho I sleep >&2\nexec sleep 600\n")
    slow.chmod(0o755)
    program = start([*with_python(str(slow)), "-n", "--pidfile=", "socks", "-p", "0", "--workers", "2"])
    program.wait_for("(?s)(I sleep.*){2}")
    pids = workers_of(program.process.pid)
    program.process.send_signal(number)
    until(lambda: program.process.poll() is not None)
    for pid in pids:
        # It has not come to reading its orders: a real one would find that there is no supervisor.
        os.kill(pid, signal.SIGKILL)
    assert program.wait() == 1
    assert f"cannot start: {number.name} came before the workers were ready" in program.output
    assert "Traceback" not in program.output


HASTY = """
import socksproxy.service.notify as notify, socksproxy.workers.supervisor as supervisor
notify.BEAT, supervisor.SILENCE = 0.5, 6.0
sound, faults = supervisor.SupervisorService.sound, [ValueError("a fault of the first look")]

def faulty(self):
    if faults:
        raise faults.pop()
    return sound(self)

supervisor.SupervisorService.sound = faulty
"""


def test_a_worker_that_hangs(start: Callable[..., Program], origin: Origin) -> None:
    """It is replaced without a service manager, too; the other worker and its sessions go on."""
    beginning = [sys.executable, "-c", HASTY + TWISTD[2], "-n", "--pidfile="]
    program = start([*beginning, "socks", "-p", "0", "--workers", "2"])
    port = int(program.wait_for(LISTENING)[1])
    stuck, other = workers_of(program.process.pid)
    os.kill(stuck, signal.SIGSTOP)
    with connected(port, origin.port) as client:
        said = program.wait_for(r"worker (\d) has shown no sign of life for 6 seconds, and is killed")
        died = rf"worker {said[1]} \(process {stuck}\) has ended: signal SIGKILL"
        program.wait_for(rf"(?s){died}.*worker {said[1]} \(process \d+\) accepts clients")
        assert echoes(client)
    assert other in workers_of(program.process.pid)
    assert program.output.count("no sign of life") == 1
    assert program.output.count("the workers cannot be watched now") == 1


# What cannot start.


def test_port_in_use(twistd: Callable[..., Program]) -> None:
    """One line and status 1, as ever, before there is any worker."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        program = twistd("socks", "-p", str(number), "--workers", "2")
        assert program.wait() == 1
    assert f"cannot listen: tcp:127.0.0.1:{number}: address already in use" in program.output
    assert "worker 1" not in program.output
    assert "Traceback" not in program.output


def test_two_supervisors(twistd: Callable[..., Program]) -> None:
    """A second one on the same port is told that it is taken: they do not share it."""
    program = twistd("socks", "-p", "0", "--workers", "2")
    number = program.wait_for(LISTENING)[1]
    second = twistd("socks", "-p", number, "--workers", "2")
    assert second.wait() == 1
    assert "address already in use" in second.output


@pytest.mark.parametrize("front", ["twistd", "twist"])
def test_workers_die_at_start(front: str, tmp_path: Path, start: Callable[..., Program]) -> None:
    """No worker can start: the reason in one line, and status 1."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no memory >&2\nexit 3\n")
    broken.chmod(0o755)
    command = with_python(str(broken))
    if front == "twist":
        command[2] = command[2].replace(TWISTD[2], TWIST[2])
        command.append("--log-format=text")
    else:
        command += ["-n", "--pidfile="]
    program = start([*command, "socks", "-p", "0", "--workers", "2"])
    assert program.wait() == 1
    reason = "no worker becomes ready; the last one ended with exit status 3 (no memory)"
    assert program.output.count(f"cannot start: {reason}") == 1
    assert "listening on" not in program.output
    assert "Traceback" not in program.output


def test_no_python(start: Callable[..., Program]) -> None:
    """Behind a chroot there may be no Python to start: that is said at once."""
    program = start(
        [*with_python("/nonexistent/python"), "-n", "--pidfile=", "socks", "-p", "0", "--workers", "2"]
    )
    assert program.wait() == 1
    assert "cannot start: no Python can be started as '/nonexistent/python' here" in program.output
    assert "Traceback" not in program.output


def test_daemon_dies_at_start(tmp_path: Path) -> None:
    """The parent of a daemon whose workers cannot start says why, fails, and leaves no PID file."""
    command = [
        *with_python("/bin/false"),
        "--pidfile=pid",
        "--logfile=log",
        "socks",
        "-p",
        "0",
        "--workers",
        "2",
    ]
    done = subprocess.run(command, cwd=tmp_path, timeout=PATIENCE, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no worker becomes ready" in done.stderr
    until(lambda: not (tmp_path / "pid").exists())


def test_gives_up_later(tmp_path: Path, start: Callable[..., Program]) -> None:
    """When all workers are gone and none can be started any more, the supervisor does not go on without."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n[ -e {tmp_path}/broken ] && exit 4\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    program = start([*with_python(str(wrapper)), "-n", "--pidfile=", "socks", "-p", "0", "--workers", "2"])
    program.wait_for(LISTENING)
    (tmp_path / "broken").touch()
    for pid in workers_of(program.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert program.wait() == -signal.SIGTERM
    assert "cannot start: no worker becomes ready; the last one ended with exit status 4" in program.output
    assert "Traceback" not in program.output


# The other ways to listen.


def test_daemon(tmp_path: Path) -> None:
    """In the background its parent waits until clients are served; the PID is the supervisor's."""
    path = tmp_path / "socks"
    command = [
        *TWISTD,
        "--pidfile=pid",
        "--logfile=log",
        "socks",
        "--workers",
        "2",
        f"--listen=unix:{path}:mode=600",
    ]
    done = subprocess.run(command, cwd=tmp_path, timeout=PATIENCE, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    number = int((tmp_path / "pid").read_text())
    pids = workers_of(number)
    assert len(pids) == 2
    assert f"listening on unix:{path}" in (tmp_path / "log").read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    try:
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(str(path))
                client.sendall(b"\x05\x01\x00")
                assert received(client, 2) == b"\x05\x00"
    finally:
        os.kill(number, signal.SIGTERM)
    until(lambda: not (tmp_path / "pid").exists())
    assert all(map(ended, pids))
    assert not path.exists()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_socket_activation(start: Callable[..., Program], origin: Origin) -> None:
    """systemd's socket serves all workers, and a second generation of them, too."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        systemd = (sys.executable, "-c", SYSTEMD, str(listening.fileno()))
        command = [*systemd, *TWISTD, "-n", "--pidfile=", "socks", "--listen=systemd:domain=INET:name=socks"]
        program = start([*command, "--workers", "2"], pass_fds=[listening.fileno()])
        program.wait_for(rf"listening on tcp:127\.0\.0\.1:{port} \(systemd:")
        with connected(port, origin.port) as client:
            assert echoes(client)
        for pid in workers_of(program.process.pid):
            os.kill(pid, signal.SIGKILL)
        program.wait_for(r"(?s)(has ended: signal SIGKILL.*){2}(accepts clients.*){2}")
        with connected(port, origin.port) as client:
            assert echoes(client)
        assert program.stop() == -signal.SIGTERM
        assert "Traceback" not in program.output


def test_tls(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Workers have the key that the supervisor has read, even when the file is gone."""
    import ssl

    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    context = ssl.create_default_context(cafile=str(pem))
    program = twistd("socks", "--workers", "2", "--listen", f"ssl:0:interface=127.0.0.1:privateKey={pem}")
    number = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+) \(ssl:")[1])
    pem.unlink()
    for pid in workers_of(program.process.pid):
        os.kill(pid, signal.SIGKILL)
    for _ in range(10):
        with (
            socket.create_connection(("127.0.0.1", number), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"\x05\x01\x00")
            assert client.recv(2) == b"\x05\x00"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_privileges(tmp_path: Path, twistd: Callable[..., Program], origin: Origin) -> None:
    """What only root may open is opened; workers are not root, nor are those that come later."""
    if not python_of_others():
        pytest.skip("nobody else can run this Python")
    tmp_path.chmod(stat.S_IRWXU)
    log = tmp_path / "access.log"
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    program = twistd(
        *("--uid=65534", "--gid=65534", "socks", "--workers", "2", "-l", str(log)),
        *("--listen", "tcp:0:interface=127.0.0.1"),
        *("--listen", f"ssl:0:interface=127.0.0.1:privateKey={pem}"),
    )
    port = int(program.wait_for(LISTENING)[1])
    os.kill(workers_of(program.process.pid)[0], signal.SIGKILL)
    program.wait_for(r"(?s)has ended: signal SIGKILL.*accepts clients")
    for pid in workers_of(program.process.pid):
        assert re.search(r"Uid:\s+65534\s+65534", Path(f"/proc/{pid}/status").read_text())
    for _ in range(10):
        with connected(port, origin.port) as client:
            assert echoes(client)
    until(lambda: log.read_text().count("\n") == 10)
    assert "Traceback" not in program.output


def test_starts_elsewhere(tmp_path: Path, start: Callable[..., Program]) -> None:
    """Names of files are those of where it was started; what lies where it runs is not imported."""
    (tmp_path / "run").mkdir()
    for name in ("json.py", "socksproxy.py", "twisted.py"):
        (tmp_path / "run" / name).write_text("raise SystemExit('the wrong one')")
    pem = tmp_path / "proxy.pem"
    pem.write_bytes(self_signed())
    listen = "ssl:0:interface=127.0.0.1:privateKey=proxy.pem"
    command = [*TWISTD, "-n", "--pidfile=", "--rundir=run", "socks", "--workers", "2", "-l", "access.log"]
    program = start([*command, "--listen", listen], {"PYTHONSAFEPATH": "", "PYTHONPATH": ""})
    program.wait_for("listening on")
    assert (tmp_path / "access.log").exists()
    assert "the wrong one" not in program.output


# What workers share.


def test_per_client_limit(
    twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]
) -> None:
    """A client has as many sessions as it may, over all workers; one that dies gives its own back."""
    program = twistd("socks", "-p", "0", "--workers", "3", "--max-sessions-per-client", "9")
    port = int(program.wait_for(LISTENING)[1])
    pids = workers_of(program.process.pid)
    kept = [connected(port, origin.port, "127.0.0.2") for _ in range(9)]
    clients += kept
    for _ in range(12):
        with pytest.raises(PermissionError):
            connected(port, origin.port, "127.0.0.2")
    clients += [connected(port, origin.port, "127.0.0.3") for _ in range(9)]
    servers = Counter(server_of(client, pids) for client in kept)
    victim, freed = servers.most_common(1)[0]
    os.kill(victim, signal.SIGKILL)
    program.wait_for(r"(?s)has ended: signal SIGKILL.*accepts clients")
    for _ in range(freed):
        clients.append(connected(port, origin.port, "127.0.0.2"))
    with pytest.raises(PermissionError):
        connected(port, origin.port, "127.0.0.2")


def binds(port: int, clients: list[socket.socket]) -> int:
    """Ask for a BIND as 127.0.0.2, and return what the reply says."""
    client = socket.socket()
    clients.append(client)
    client.settimeout(PATIENCE)
    client.bind(("127.0.0.2", 0))
    client.connect(("127.0.0.1", port))
    client.sendall(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50")
    return received(client, 12)[3]


def test_bind_limit(twistd: Callable[..., Program], clients: list[socket.socket]) -> None:
    """A client's BINDs are counted over all workers, too."""
    program = twistd("socks", "-p", "0", "--workers", "3", "--max-binds-per-client", "3")
    port = int(program.wait_for(LISTENING)[1])
    assert [binds(port, clients) for _ in range(12)] == 3 * [0] + 9 * [2]
    for client in clients[:3]:
        client.close()
    until(lambda: binds(port, clients) == 0)


def test_total_limit(twistd: Callable[..., Program], origin: Origin, clients: list[socket.socket]) -> None:
    """The limit of all sessions is that of all workers, and whoever ends makes room."""
    program = twistd("socks", "-p", "0", "--workers", "2", "--max-sessions", "10")
    port = int(program.wait_for(LISTENING)[1])
    clients += [connected(port, origin.port) for _ in range(10)]
    with pytest.raises(PermissionError):
        connected(port, origin.port)
    clients.pop().close()

    def room() -> bool:
        try:
            clients.append(connected(port, origin.port))
        except PermissionError:
            return False
        return True

    until(room)


@pytest.mark.parametrize("format", ["text", "json"])
def test_access_log(format: str, tmp_path: Path, twistd: Callable[..., Program], origin: Origin) -> None:
    """One line for each session, whole, in one file, whoever served it; and a new file when it was moved."""
    log = tmp_path / "access.log"
    options = ("-p", "0", "--workers", "2", "-l", str(log), "--log-format", format)
    program = twistd("--logfile=twistd.log", "socks", *options)
    until(lambda: (tmp_path / "twistd.log").exists())
    until(lambda: "listening on" in (tmp_path / "twistd.log").read_text())
    said = re.search(LISTENING, (tmp_path / "twistd.log").read_text())
    assert said is not None
    port = int(said[1])

    def lines(path: Path) -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    def some() -> None:
        for _ in range(25):
            with connected(port, origin.port) as client:
                echoes(client)

    def run_some() -> None:
        threads = [threading.Thread(target=some) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run_some()
    until(lambda: len(lines(log)) == 200)
    log.rename(tmp_path / "old")
    program.process.send_signal(signal.SIGUSR1)
    until(log.exists)
    until(lambda: (tmp_path / "twistd.log.1").exists())
    pids = workers_of(program.process.pid)
    until(lambda: not any(str(tmp_path / "old") in descriptors_of(pid) for pid in pids))
    run_some()
    until(lambda: len(lines(log)) == 200)
    pattern = r'\{"time":".*"ended":"\w+"\}' if format == "json" else r"\S+ client=\S+ user=- .* ended=\w+"
    for line in lines(log) + lines(tmp_path / "old"):
        assert re.fullmatch(pattern, line), line
        assert line.count("client") >= 1
        assert line.count("handshake_seconds") == 1


def test_own_listeners(twistd: Callable[..., Program]) -> None:
    """Every worker knows where the proxy listens: nobody sends it to itself."""
    program = twistd("socks", "-p", "0", "--workers", "2")
    port = int(program.wait_for(LISTENING)[1])
    for _ in range(12):
        with pytest.raises(PermissionError):
            connected(port, port)


def test_open_warns_once(twistd: Callable[..., Program]) -> None:
    """What --open means is said once, whatever the number of workers."""
    program = twistd("socks", "-i", "0.0.0.0", "-p", "0", "--open", "--workers", "3")
    program.wait_for("listening on tcp:0.0.0.0")
    assert program.stop() == -signal.SIGTERM
    assert program.output.count("every client that reaches it can use the proxy") == 1
    assert program.output.count("descriptors:") == 1


def test_not_open(start: Callable[..., Program]) -> None:
    """What is not to be open does not start, with workers as without."""
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        systemd = (sys.executable, "-c", SYSTEMD, str(listening.fileno()))
        command = [*systemd, *TWISTD, "-n", "--pidfile=", "socks", "--listen=systemd:domain=INET:name=socks"]
        program = start([*command, "--workers", "2"], pass_fds=[listening.fileno()])
        assert program.wait() == 1
        assert "is not a loopback address" in program.output


LATE_TAC = """
from attrs import evolve
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.task import deferLater

from socksproxy.app import Options
from socksproxy.app import makeService
from socksproxy.config.plan import Listener

options = Options(reactor)
options.parseOptions(["-p", "0", "--workers", "2"])
(listener,) = options.plan.listeners


class Late:
    def listen(self, factory):
        return deferLater(reactor, 0.01, listener.endpoint.listen, factory)


options.plan = evolve(options.plan, listeners=[Listener(listener.description, Late())])
application = Application("late")
makeService(options).setServiceParent(application)
"""


def test_late_endpoint(tmp_path: Path, twistd: Callable[..., Program], origin: Origin) -> None:
    """In a .tac file too, and with an endpoint that takes its time to open, workers get its port."""
    (tmp_path / "late.tac").write_text(LATE_TAC)
    program = twistd("-y", "late.tac")
    port = int(program.wait_for(LISTENING)[1])
    with connected(port, origin.port) as client:
        assert echoes(client)


def test_fault_in_a_worker(tmp_path: Path, twistd: Callable[..., Program], origin: Origin) -> None:
    """A traceback of a worker is in the log, with its number."""
    (tmp_path / "usercustomize.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'socksproxy' in sys.orig_argv:\n"
        "    import warnings\n"
        "    warnings.warn('a word of warning')\n"
    )
    program = twistd("socks", "-p", "0", "--workers", "2", environment={"PYTHONPATH": str(tmp_path)})
    program.wait_for(LISTENING)
    assert program.output.count("UserWarning: a word of warning") == 2
    assert re.search(r"worker 1: .*UserWarning: a word of warning", program.output)
