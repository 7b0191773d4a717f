"""The load generator: compiled when it is needed, run, and what it says read."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from machine import pinned
from paths import BUILD, HERE

SOURCE = HERE / "socksload.c"
FLAGS = ("-O2", "-Wall")

#: Seconds that a run may take; socksload itself gives up after 20 without any event.
PATIENCE = 60.0


class NoCompiler(Exception):
    """The load generator cannot be built."""


class Outcome(NamedTuple):
    """
    What came of a run.

    :ivar figures: what socksload printed, by its own names; empty when there was nothing to measure.
    :ivar problem: in one line, why there was not; or ``""``.
    """

    figures: dict[str, float]
    problem: str

    @property
    def failed(self) -> int:
        """Sessions that failed, or datagrams lost."""
        return int(self.figures.get("fail", 0))


def compiler() -> str | None:
    """The C compiler: the one that CC names, or ``cc``."""
    return shutil.which(os.environ.get("CC", "cc"))


def build() -> Path:
    """
    The load generator's path.

    :raises NoCompiler: without a C compiler, or when it does not like the source.
    """
    source = SOURCE.read_bytes()
    binary = BUILD / f"socksload-{hashlib.sha256(source).hexdigest()[:12]}"
    if binary.exists():
        return binary
    cc = compiler()
    if cc is None:
        raise NoCompiler("there is no C compiler (cc) for the load generator")
    BUILD.mkdir(parents=True, exist_ok=True)
    unfinished = binary.with_suffix(f".{os.getpid()}")
    done = subprocess.run([cc, *FLAGS, "-o", unfinished, SOURCE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompiler(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return unfinished.replace(binary)


def begin(
    load: Path, arguments: Sequence[str], port: int, pid: int = 0, cpus: Collection[int] = ()
) -> subprocess.Popen[str]:
    """
    Start the load against a server.

    :param load: what :func:`build` gave.
    :param arguments: the mode and its options.
    :param port: the server's.
    :param pid: its process, whose time and memory are looked at, its descendants included.
    :param cpus: the cores the load may use; none: any.
    """
    return subprocess.Popen(
        [load, *arguments, "-p", str(port), "-P", str(pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=pinned(cpus),
    )


def finish(process: subprocess.Popen[str], patience: float = PATIENCE) -> Outcome:
    """
    Wait for the load.

    :param process: what :func:`begin` gave.
    :param patience: seconds.
    """
    try:
        said, complaint = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        return Outcome({}, f"not done after {patience:.0f} s")
    finally:
        process.kill()
        process.wait()
    figures = read(said)
    return Outcome(figures, "" if figures else _last_line(complaint) or "nothing was measured")


def run(load: Path, arguments: Sequence[str], port: int, pid: int = 0, cpus: Collection[int] = ()) -> Outcome:
    """:func:`begin`, and :func:`finish`."""
    return finish(begin(load, arguments, port, pid, cpus))


def read(line: str) -> dict[str, float]:
    """The numbers of a line of ``key=value``."""
    found = {}
    for word in line.split():
        key, _, value = word.partition("=")
        try:
            found[key] = float(value)
        except ValueError:
            continue
    return found


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:100]
