"""The tables ``[shared]`` and ``[node]``, and what ``check`` says of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options
from socksproxy.cli import main
from socksproxy.config.command_line import Mistakes
from socksproxy.config.shared import NODE_KEYS, SHARED_KEYS
from socksproxy.net.resources import CheckedResources
from socksproxy.values.limits import Fallback
from socksproxy.values.shared import NodeSettings, SharedSettings, StoreAddress, own_name

STORE = '[shared]\nstore = "redis://127.0.0.1:6379"\n'


def parsed(config: str, directory: Path) -> Options:
    reactor = MemoryReactorClock()
    options = Options(reactor, CheckedResources(reactor), config.encode(), str(directory))
    options.parseOptions(["--config=file"])
    return options


def problems(config: str, directory: Path) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        parsed(config, directory)
    return list(caught.value.lines)


def test_every_key_is_a_field() -> None:
    known = {field.name for field in fields(SharedSettings)} - {"password", "node"}
    assert {key.replace("-", "_") for key in SHARED_KEYS} == known
    assert set(NODE_KEYS) == {field.name for field in fields(NodeSettings)}


def test_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    monkeypatch.setenv("STORE", "valkey.example.org")
    config = (
        '[shared]\nstore = "rediss://${STORE}/1"\npassword-file = "password"\nca-file = "ca.pem"\n'
        'site = "berlin"\nrequired = false\nnodes = 4\n[node]\nname = "n1"\n'
        '[limits.user]\nsessions = 5\nshared = "strict"\n'
    )
    settings = parsed(config, tmp_path).plan.settings
    assert settings.shared is not None
    assert settings.shared.settings == SharedSettings(
        store=StoreAddress(places=(("valkey.example.org", 6379),), tls=True, database=1),
        password_file=str(tmp_path / "password"),
        password="hunter2",
        ca_file=str(tmp_path / "ca.pem"),
        site="berlin",
        required=False,
        nodes=4,
        node="n1",
    )
    assert settings.limits.user.shared is Fallback.STRICT
    assert "hunter2" not in repr(settings.shared.settings)


def test_defaults(tmp_path: Path) -> None:
    """A node has the name of its machine; without the table there is no store."""
    shared = parsed(STORE, tmp_path).plan.settings.shared
    assert shared is not None
    assert (shared.settings.node, shared.settings.site, shared.settings.required) == (
        own_name(),
        "socks",
        True,
    )
    plan = parsed('[node]\nname = "n1"\n', tmp_path).plan
    assert (plan.settings.shared, plan.node) == (None, NodeSettings(name="n1"))
    assert parsed("", tmp_path).plan.node.name == own_name()


def test_admin_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "10.90.0.11")
    listener = '[[admin.listener]]\nendpoint = "tcp:9090:interface=127.0.0.1"\n'
    config = f'[node]\nadmin = "http://${{HERE}}:9090/"\n{listener}'
    assert parsed(config, tmp_path).plan.node.admin == "http://10.90.0.11:9090"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("[shared]\n", "file:1: [shared]: store is missing"),
        ("shared = 1\n", "file:1: [shared]: not a table; its keys stand below a line [shared]"),
        (
            '[shared]\nstore = "redis://:hunter2@x:y"\n',
            "file:2: [shared] store: not the URL of a store",
        ),
        ("[shared]\nstore = 1\n", "file:2: [shared] store = 1: not text in quotes"),
        (f'{STORE}sites = "a"\n', "file:3: [shared] sites: no such key; did you mean site?"),
        (f'{STORE}site = "a b"\n', 'file:3: [shared] site = "a b": a name has up to 64 letters'),
        (f"{STORE}nodes = 0\n", "file:3: [shared] nodes = 0: not a whole number from 1 to 1024"),
        (f"{STORE}required = false\n", "file:3: [shared] required = false: needs nodes: without the store"),
        (f'{STORE}password-file = "none"\n', 'file:3: [shared] password-file = "none": no such file'),
        (f"{STORE}[node]\nname = 1\n", "file:4: [node] name = 1: not text in quotes"),
        ("[node]\nadmin = 1\n", "file:2: [node] admin = 1: not text in quotes"),
        *(
            (f'[node]\nadmin = "{url}"\n', "not the URL of an admin listener, such as http://HOST:9090")
            for url in (
                "10.90.0.11:9090",
                "unix:/run/socksproxy/admin.sock",
                "http://10.90.0.11",
                "http://:9090",
                "http://x:99999",
                "http://x:1/v1",
                "http://user@x:1",
                "http://x:1?a",
                f"http://{'x' * 300}:1",
            )
        ),
        (
            '[node]\nadmin = "http://x:1"\n[[admin.listener]]\nendpoint = "unix:/run/x"\n',
            'file:2: [node] admin = "http://x:1": there is no [[admin.listener]] at an address',
        ),
        (
            '[limits.user]\nsessions = 1\nshared = "no"\n',
            'file:3: [limits.user] shared = "no": there are share, strict and local',
        ),
        (
            '[limits.session]\nshared = "local"\n',
            "not of a single session, which has upload",
        ),
    ],
)
def test_mistakes(config: str, line: str, tmp_path: Path) -> None:
    (found,) = problems(config, tmp_path)
    assert line in found
    assert "hunter2" not in found


def test_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksproxy.shared.thread", None)
    (found,) = problems(STORE, tmp_path)
    assert "file:1: [shared]: the extra [shared] is not installed" in found
    assert "pip install 'twisted-socksproxy[shared]'" in found


def test_check(tmp_path: Path, capsys: Any) -> None:
    """``check`` takes the file, and does not connect."""
    file = tmp_path / "socks.toml"
    file.write_text('[shared]\nstore = "redis://192.0.2.1"\n')
    assert main(["check", str(file)]) == 0
    assert main(["explain", str(file), "connect", "example.org:443"]) in (0, 1)
    capsys.readouterr()
