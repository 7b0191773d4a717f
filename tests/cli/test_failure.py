"""How a command fails: see :mod:`socksproxy.cli.failure`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from socksproxy.cli.failure import complain, shown, tell, with_mistakes


@pytest.mark.parametrize(("lines", "count"), [(["a"], "1 mistake"), (["a", "b"], "2 mistakes")])
def test_mistakes(lines: list[str], count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(with_mistakes("socks.toml", lines)) == f"socks.toml: {count}"
    assert capsys.readouterr().err.splitlines() == lines
    assert str(with_mistakes("socks.toml", lines, "node.toml")) == f"socks.toml with node.toml: {count}"


def test_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in a text, it cannot look like another line."""
    tell("a\nb")
    complain("c\x1b[2J")
    said = capsys.readouterr()
    assert said.out.count("\n") == said.err.count("\n") == 1
    assert "\x1b" not in said.err


def test_names_of_files() -> None:
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\\xe9"


@pytest.mark.parametrize(("device", "status"), [("/dev/full", 1), ("/dev/null", 0)])
def test_output_that_cannot_be_written(device: str, status: int, tmp_path: Path) -> None:
    """It is told on standard error."""
    call = "main(['explain', 'socks.toml', 'associate'])"
    command = [sys.executable, "-c", f"from socksproxy.cli import main; raise SystemExit({call})"]
    (tmp_path / "socks.toml").write_text("")
    with open(device, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60)
    assert done.returncode == status
    assert (b"the output cannot be written: no space left on device" in done.stderr) is bool(status)
