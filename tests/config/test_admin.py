"""The tables of admin sockets: see :mod:`socksproxy.config.admin`."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import fields
from twisted.internet.testing import MemoryReactorClock

from socksproxy.admin.settings import AdminLevel, AdminListener, AdminSettings
from socksproxy.app import Options
from socksproxy.config.admin import ADMIN_KEYS, ADMIN_LISTENER_KEYS
from socksproxy.config.command_line import Mistakes
from socksproxy.net.resources import Resources


def parsed(config: str, directory: Path) -> AdminSettings | None:
    reactor = MemoryReactorClock()
    options = Options(reactor, Resources(reactor), config.encode(), str(directory))
    options.parseOptions(["--config=file"])
    return options.plan.admin


def problems(config: str, directory: Path) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        parsed(config, directory)
    return list(caught.value.lines)


def test_every_key_is_a_field() -> None:
    listener = {key.replace("-", "_") for key in ADMIN_LISTENER_KEYS}
    assert listener == {field.name for field in fields(AdminListener)}
    assert {*ADMIN_KEYS} - {"listener"} | {"listeners"} == {field.name for field in fields(AdminSettings)}


def test_none(tmp_path: Path) -> None:
    assert parsed("", tmp_path) is None


def test_meaning(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    settings = parsed(
        """
        [admin]
        names = ["Proxy.Example.Org."]
        notice = 0
        agent = "tcp:9777"
        [[admin.listener]]
        endpoint = "unix:/run/admin:mode=600"
        [[admin.listener]]
        endpoint = "tcp:9090"
        level = "operator"
        token-file = "token"
        """,
        tmp_path,
    )
    assert settings == AdminSettings(
        listeners=(
            AdminListener(endpoint="unix:/run/admin:mode=600"),
            AdminListener(endpoint="tcp:9090", level=AdminLevel.OPERATOR, token_file=str(tmp_path / "token")),
        ),
        names=("proxy.example.org",),
        notice=0.0,
        agent="tcp:9777",
    )


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("admin = 1", "file:1: [admin]: not a table"),
        ("[admin]\nlistner = 1", "file:2: [admin] listner: no such key; did you mean listener?"),
        ("[admin]\nlistener = {}", "file:2: [admin] listener: each listener has a table of its own"),
        (
            "[[admin.listener]]\nendpoint = 'unix:a'\nlevel = 'root'",
            'level = "root": there are monitor',
        ),
        ("[[admin.listener]]", "[[admin.listener]] number 1: endpoint is missing"),
        ("[[admin.listener]]\nendpoint = 'tcp:1'", 'number 1 endpoint = "tcp:1": not a loopback address'),
        ("[[admin.listener]]\nendpoint = 'unix:a'\ntoken-file = 'x'", 'token-file = "x": no such file'),
        ("[[admin.listener]]\nendpoint = 'unix:a'\ntoken-file = '.'", 'token-file = ".": not a regular file'),
        (
            # Of an admin listener that is wrong nothing follows.
            "[node]\nadmin = 'http://x:1'\n[[admin.listener]]\nendpoint = 'tcp:1'\ntoken-file = 'x'",
            'file:5: [[admin.listener]] number 1 token-file = "x": no such file',
        ),
        ("[[admin.listener]]\nendpoint = 'unix:a'\n" * 2, 'number 2 endpoint = "unix:a": two listeners'),
        ("[admin]\nnames = ['a/b']", '[admin] names[0] = "a/b": not the name of a host'),
        ("[admin]\nnotice = -1", "[admin] notice = -1: not a number of seconds"),
        ("[admin]\nnotice = true", "[admin] notice = true: not a number"),
        ("[admin]\nagent = '9777'", '[admin] agent = "9777": must begin with tcp:'),
    ],
)
def test_mistakes(config: str, told: str, tmp_path: Path) -> None:
    """Each mistake has one line, which names the place and what would be right."""
    (line,) = problems(config, tmp_path)
    assert told in line


def test_no_token(tmp_path: Path) -> None:
    """What a file with a token has is looked at, too."""
    (tmp_path / "token").write_text("secret")
    (line,) = problems("[[admin.listener]]\nendpoint = 'unix:a'\ntoken-file = 'token'", tmp_path)
    assert line.endswith('token-file = "token": a token has at least 16 characters of ASCII, and no spaces')
