"""Errors in options and in the configuration file: their own lines, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ..support.processes import PATIENCE, PYTHON_M_TWISTED, TWIST, TWISTD, Program

STARTED_BY = {"twistd": TWISTD, "twist": TWIST, "python -m twisted": PYTHON_M_TWISTED}
#: A locale that knows nothing but ASCII, and no way round it.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def started(
    command: Sequence[str], directory: Path, environment: dict[str, str] | None = None
) -> tuple[int, str, list[str]]:
    """The exit status, what was said on standard output, and the lines of standard error."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize("name", STARTED_BY)
def test_option(name: str, tmp_path: Path) -> None:
    """One line, whatever has parsed the command line."""
    command = [*STARTED_BY[name], "socks", "--port", "x"]
    assert started(command, tmp_path) == (1, "", ["socks: --port x: not a number from 0 to 65535"])


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["--port", "x", "--drain", "-1"],
            ["socks: --port x: not a number", "socks: --drain -1: not a number of seconds"],
        ),
        (["--bogus"], ["socks: option --bogus not recognized"]),
        (["surplus"], ["socks: surplus: not an option, and no option's value"]),
        (["--auth", "nonsense"], ["socks: --auth nonsense: no such type, see --help-auth"]),
        (["--config", "nowhere.toml"], ["socks: --config nowhere.toml: no such file or directory"]),
        (["--resolver", "x\ny"], ["socks: --resolver 'x\\ny' is neither"]),
        (
            ["--config", "socks.toml", "--drain", "x"],
            [
                "--drain x: not a number of seconds, or 0 for none",
                "socks.toml:2: [listeners] prot: no such key; did you mean port?",
                'socks.toml:3: [listeners] listen[0] = "b\u00fccher:1": not an endpoint',
            ],
        ),
    ],
)
def test_lines(arguments: list[str], lines: list[str], tmp_path: Path) -> None:
    """No usage comes before them."""
    content = '[listeners]\nprot = 1\nlisten = ["b\u00fccher:1"]\n'
    (tmp_path / "socks.toml").write_text(content, "utf-8")
    status, out, told = started([*TWISTD, "socks", *arguments], tmp_path)
    assert (status, out, len(told)) == (1, "", len(lines))
    for line, beginning in zip(told, lines, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}])
def test_without_unicode(environment: dict[str, str], tmp_path: Path) -> None:
    """What a terminal cannot show is escaped."""
    (tmp_path / "socks.toml").write_text('[log]\nlog = "nowhere/\u00e9"\n', "utf-8")
    command = [*TWISTD, "socks", "--config", "socks.toml"]
    status, out, told = started(command, tmp_path, environment)
    assert (status, out, len(told)) == (1, "", 1)
    assert told[0].startswith('socks.toml:2: [log] log = "nowhere/\\xe9": no')
    status, out, told = started([*TWISTD, "socks", "-l", "nowhere/\u00e9"], tmp_path, environment)
    assert (status, out, len(told)) == (1, "", 1)
    assert told[0].startswith("socks: --log nowhere/")


def test_log_without_unicode(tmp_path: Path, start: Callable[..., Program]) -> None:
    """A line of the server's own log is not lost for a character."""
    (tmp_path / "b\u00fccher.toml").write_text("[listeners]\nport = 0\n")
    command = [*TWISTD, "-n", "--pidfile=", "socks", "--config", "b\u00fccher.toml"]
    program = start(command, {"PYTHONIOENCODING": "ascii"})
    port = int(program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert sock.recv(2) == b"\x05\x00"  # the reactor runs, and signals are handled
    program.process.send_signal(signal.SIGHUP)
    program.wait_for(r"reloaded: b\\xfccher\.toml is in force")
