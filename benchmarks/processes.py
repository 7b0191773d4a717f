"""A server as a process: started on its cores, looked at, and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType

from machine import pinned
from paths import ROOT
from peers import Peer

#: Seconds in which a server must listen, and those in which it should then come to rest.
PATIENCE = 20.0
REST = 10.0


class CannotStart(Exception):
    """A server does not listen; what it said last."""


def free_port() -> int:
    """A port on loopback that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(port: int, runs: Callable[[], bool] = lambda: True) -> bool:
    """
    Wait until something listens on *port* of 127.0.0.1.

    :param runs: whether it still may.
    :returns: whether it does.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and runs():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


class Server:
    """
    A running server, in a directory of its own.

    :param command: gets the port and the directory, and says what to run.
    :param cpus: the cores that the server may use; none: any.
    :ivar port: where it listens, on 127.0.0.1.
    :raises CannotStart: when it does not listen after a while.
    """

    def __init__(self, command: Callable[[int, Path], Sequence[str]], cpus: Collection[int] = ()) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="socks-benchmark-"))
        self._log = self.directory / "output"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command(self.port, self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment(),
                start_new_session=True,
                preexec_fn=pinned(cpus),
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [self.process.pid, *descendants(self.process.pid)]

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._log.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End it, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait(self) -> None:
        if wait_for(self.port, lambda: self.process.poll() is None):
            self._rest()
            return
        said = self.output.strip().splitlines()
        raise CannotStart(said[-1] if said else "it does not listen")

    def _rest(self) -> None:
        """Wait until the processes do nothing: some of them may not be ready yet."""
        deadline = time.monotonic() + REST
        before = -1.0
        while time.monotonic() < deadline:
            now = cpu_time(self.pids)
            if now == before:
                return
            before = now
            time.sleep(0.4)


def start(
    peer: Peer, cpus: Collection[int] = (), own: Callable[[Path], Sequence[str]] = lambda _: ()
) -> Server:
    """
    Start *peer*.

    :param cpus: the cores that it may use.
    :param own: gives further arguments for a server in that directory.
    :raises CannotStart: when it does not listen.
    """

    def command(port: int, directory: Path) -> list[str]:
        words, more = peer.command(peer.binary, port, directory), own(directory)
        if "--listen" in more:  # which takes no --port beside it
            place = words.index("--port")
            words[place : place + 2] = ["--listen", f"tcp:{port}:interface=127.0.0.1"]
        return [*words, *more]

    return Server(command, cpus)


def environment() -> dict[str, str]:
    """For a process that is to run this checkout's code."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def cpu_time(pids: Sequence[int]) -> float:
    """Seconds of processor time that processes have taken."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue  # it has ended meanwhile
        user, system = stat.rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    except OSError:
        return found  # it has ended meanwhile
    return found
