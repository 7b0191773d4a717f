"""``socksproxy check``; ``tests/config`` has what it finds."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from socksproxy.cli import main


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("socks.toml")


def test_no_mistakes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[listeners]\nlisten = ["tcp:1080:interface=127.0.0.1"]\n')
    assert main(["check", "socks.toml"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("socks.toml: no mistakes\n", "")


def test_mistakes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a line, and the last line counts them."""
    file.write_text('[listeners]\nlisten = ["tcp:1080"]\nlisten-to = 1\n\n[timeouts]\nidle = "soon"\n')
    assert main(["check", "socks.toml"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    *mistakes, last = said.err.splitlines()
    assert last.endswith("socks.toml: 2 mistakes")
    assert [word for word in ("listen-to", "idle") if any(word in line for line in mistakes)] == [
        "listen-to",
        "idle",
    ]


def test_node(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is read together is counted together: a mistake may be in either file."""
    file.write_text("")
    node = Path("node.toml")
    node.write_text('[node]\nname = "n1"\n')
    assert main(["check", "socks.toml", "--node", "node.toml"]) == 0
    assert capsys.readouterr().out == "socks.toml with node.toml: no mistakes\n"
    node.write_text('[node]\nname = "-"\n')
    assert main(["check", "socks.toml", "--node", "node.toml"]) == 1
    mistake, last = capsys.readouterr().err.splitlines()
    assert mistake.startswith("node.toml:2: [node] name")
    assert last == "socksproxy: socks.toml with node.toml: 1 mistake"


@pytest.mark.parametrize("command", [["check", "socks.toml"], ["explain", "socks.toml", "associate"]])
def test_two_nodes(command: list[str], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two files, none is chosen silently."""
    with pytest.raises(SystemExit) as end:
        main([*command, "--node", "a", "--node", "b"])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith("error: --node is given twice\n")


def test_no_such_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "socks.toml"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "socks.toml" in said.err
    assert "no such file" in said.err
    assert "Traceback" not in said.err


def test_nothing_is_opened(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is no mistake, and no access log is written."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(
            f'[listeners]\nlisten = ["tcp:{port}:interface=127.0.0.1"]\n\n[log]\nlog = "access.log"\n'
        )
        assert main(["check", "socks.toml"]) == 0, capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["socks.toml"]
