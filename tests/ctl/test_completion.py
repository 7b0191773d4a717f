"""Completion: the words, and each shell that is here. See :mod:`socksproxy.ctl.completion`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from socksproxy.ctl.command import main
from socksproxy.ctl.completion import SCRIPTS
from socksproxy.ctl.subcommands import SUBCOMMANDS

from ..support.ctl import answer, scripted
from ..support.nodes import FakeNode, listing, row
from ..support.programs import require

USERS = answer(json.dumps({"users": [{"user": "bob"}, {"user": "bo b"}, {"user": "al\x1bice"}]}))


Complete = Callable[..., list[str]]


@pytest.fixture
def complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Complete:
    """``complete(word, ...)``: the words that a shell is told."""
    monkeypatch.setenv("SOCKSPROXY_ADMIN", str(tmp_path / "admin"))

    def call(*words: str) -> list[str]:
        assert main(["complete", "--", *words]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        return told.out.splitlines()

    return call


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sta", ["status"]),
        ("--json sta", ["status"]),
        ("-s x un", ["unlock", "undrain"]),
        ("health --l", ["--live"]),
        ("sessions --so", ["--sort"]),
        ("sessions --sort ", ["age", "rate", "bytes"]),
        ("sessions --command R", ["RESOLVE", "RESOLVE_PTR"]),
        ("listener x d", ["disable", "drain"]),
        ("wait d", ["drained"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("raw G", ["GET"]),
        ("nothing x", []),
        ("users --limit 1", []),
    ],
)
def test_words(line: str, words: list[str], complete: Complete) -> None:
    """No server is asked for these."""
    assert complete(*line.split(" ")) == words


def test_live_words(complete: Complete, tmp_path: Path) -> None:
    """Names are those of the server that a terminal can show; without a server there are none."""
    with scripted(tmp_path / "admin", [USERS] * 3):
        assert complete("users", "b") == ["bob", "bo b"]
        assert complete("kill", "--user", "bo") == ["bob", "bo b"]
        assert complete("-s", str(tmp_path / "admin"), "sessions", "--user", "") == ["bob", "bo b"]
    assert complete("users", "b") == []


def test_nodes(complete: Complete, tmp_path: Path) -> None:
    """The names of nodes are those that the server knows; with a name, that node knows the other words."""
    with FakeNode("n2") as two:
        two.answers["/v1/users"] = {"users": [{"user": "ann"}]}
        with scripted(tmp_path / "admin", [listing(row("n1"), row("n2", admin=two.url))] * 2):
            assert complete("--node", "n") == ["n1", "n2"]
            assert complete("--node", "n2", "users", "a") == ["ann"]


def test_all_subcommands(complete: Complete) -> None:
    found = complete("")
    assert [each for each in found if not each.startswith("-")] == [each.name for each in SUBCOMMANDS]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a program ``socksproxy`` and the scripts of the shells."""
    program = tmp_path / "socksproxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m socksproxy "$@"\n')
    program.chmod(0o755)
    for shell, script in SCRIPTS.items():
        (tmp_path / f"completion.{shell}").write_text(script)
    return tmp_path


def _shell(home: Path, *command: str) -> list[str]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=home,
        env={
            **os.environ,
            "PATH": f"{home}:{os.environ['PATH']}",
            "HOME": str(home),
            "SOCKSPROXY_ADMIN": f"{home}/admin",
        },
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


_BASH_LINE = """
. ./completion.bash
COMP_LINE="$1" COMP_POINT=${#1}
read -r -a COMP_WORDS <<< "$COMP_LINE"
[[ "$COMP_LINE" == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_socksproxy
[ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("socksproxy c", ["ctl"]),
        ("socksproxy ctl stat", ["status"]),
        ("socksproxy ctl health --li", ["--live"]),
        ("socksproxy ctl completion ", ["bash", "zsh", "fish"]),
        ("socksproxy ctl kill --user bo", ["bob", r"bo\ b"]),
        ("socksproxy check x", []),
    ],
)
def test_bash(line: str, words: list[str], home: Path) -> None:
    bash = require("bash")
    with scripted(home / "admin", [USERS]):
        assert _shell(home, bash, "-c", _BASH_LINE, "bash", line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("socksproxy ctl stat", ["status"]),
        ("socksproxy ctl health --li", ["--live"]),
        ("socksproxy ctl kill --user bo", ["bob", "bo b"]),
    ],
)
def test_fish(line: str, words: list[str], home: Path) -> None:
    fish = require("fish")
    with scripted(home / "admin", [USERS]):
        found = _shell(home, fish, "-N", "-c", 'source completion.fish; complete -C "$argv[1]"', line)
    assert sorted(found) == sorted(words)


#: compadd is a word of zsh's line editor: another one in its place shows what it is given.
_ZSH_LINE = """
compdef() { }
compadd() { [[ $1 == -a ]] && print -rl -- "${(@P)2}" || print -rl -- "$@" }
_files() { }
words=("${(@z)1}")
[[ $1 == *' ' ]] && words+=("")
CURRENT=$#words
. ./completion.zsh
_socksproxy
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("socksproxy ctl stat", ["status"]),
        ("socksproxy ctl health --li", ["--live"]),
        ("socksproxy ctl completion ", ["bash", "zsh", "fish"]),
        ("socksproxy ctl kill --user bo", ["bob", "bo b"]),
    ],
)
def test_zsh(line: str, words: list[str], home: Path) -> None:
    zsh = require("zsh")
    with scripted(home / "admin", [USERS]):
        assert _shell(home, zsh, "-f", "-c", _ZSH_LINE, "zsh", line) == words
