"""``socksproxy sign``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from socksproxy.cli import main


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("socks.toml")
    path.write_text("[log]\n")
    path.chmod(0o640)
    return path


def test_sign(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys of openssl; the file keeps its mode, and ``check`` finds the signature."""
    for command in ("genpkey -algorithm ed25519 -out key", "pkey -in key -pubout -out public"):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    assert main(["check", "socks.toml", "--config-key=public"]) == 1
    assert 'has no signature: the last line must be that of "socksproxy sign"' in capsys.readouterr().err
    for _ in range(2):
        assert main(["sign", "key", "socks.toml"]) == 0
        assert capsys.readouterr().out == "socks.toml: signed\n"
    assert file.read_text().count("# signed: ") == 1
    assert file.stat().st_mode & 0o777 == 0o640
    assert main(["check", "socks.toml", "--config-key=public"]) == 0


def test_problems(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (("none", "socks.toml"), "none: no such file"),
        (("socks.toml", "socks.toml"), "socks.toml: not a private key in PEM without a password"),
        (("socks.toml", "none"), "none: no such file"),
        (("socks.toml", "a\0b"), "not a path"),
    ):
        assert main(["sign", *arguments]) == 1
        assert words in capsys.readouterr().err
    assert file.read_text() == "[log]\n"
