"""``socksproxy explain``: what rules decide, and why, for who runs the proxy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from socksproxy.cli import main

RULES = """
[[rule]]
name = "inside"
allow = false
networks = ["private"]

[[rule]]
name = "admins"
allow = true
users = ["bob"]
clients = ["192.0.2.0/24"]
ports = [443]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "socks.toml"
    path.write_text(RULES)
    return str(path)


def test_text(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The decision, the rule that made it and why the earlier ones did not match."""
    question = [file, "--user", "bob", "--from", "192.0.2.7", "connect", "Example.com:443"]
    assert main(["explain", *question, "--address", "10.0.0.1", "--address", "203.0.113.9"]) == 0
    assert (
        capsys.readouterr().out
        == """\
example.com:443: allowed (by rule admins)
  1. inside (deny): depends on the address
  2. admins (allow): matches
10.0.0.1:443: denied (by rule inside)
  1. inside (deny): matches
203.0.113.9:443: allowed (by rule admins)
  1. inside (deny): networks private, not 203.0.113.9
  2. admins (allow): matches
"""
    )


def test_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", file, "associate", "[2001:db8::1]:53"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["destination"], told["allowed"], told["rule"]) == ("[2001:db8::1]:53", False, "default")
    assert [step["rule"] for step in told["steps"]] == ["inside", "admins"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["connect", "example.com"], "example.com: not HOST:PORT, such as example.com:443"),
        (["connect", "example.com:99999"], "example.com:99999: not HOST:PORT"),
        (["connect", "-x-.com:1"], "-x-.com:1: the host cannot be the name of one"),
        (
            ["--from", "nowhere", "connect", "a.example:1"],
            "--from nowhere: not a literal IPv4 or IPv6 address",
        ),
        (["--address", "a", "connect", "a.example:1"], "--address a: not a literal IPv4 or IPv6 address"),
    ],
)
def test_questions_without_sense(
    file: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments[:-2], file, "--", *arguments[-2:]]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are no rules in it"),
        ("[[rule]]\nname = 5\n", "it has mistakes"),
        ("[[rule\n", "it has mistakes"),
        (None, "No such file or directory"),
    ],
)
def test_files_without_rules(
    tmp_path: Path, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socks.toml"
    if text is not None:
        path.write_text(text)
    assert main(["explain", str(path), "connect", "a.example:1"]) == 1
    assert capsys.readouterr().err.rstrip().endswith(said)
