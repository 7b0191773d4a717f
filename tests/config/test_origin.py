"""Where the configuration comes from, as the command line says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from socksproxy.cli import main
from socksproxy.config.command_line import SOCKSOptions
from socksproxy.config.origin import is_remote
from tests.support.config_server import config_server


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problem(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        SOCKSOptions().parseOptions(arguments)
    return str(caught.value)


def test_kinds() -> None:
    assert [is_remote(name) for name in ("socks.toml", "/etc/socks", "a:b", "ftp://a/")] == [False] * 4
    remote = (
        "https://a/",
        "http://a/",
        "redis://a/#k",
        "rediss://a/#k",
        "unix:///a#k",
        "redis+sentinel://a/s#k",
    )
    assert all(is_remote(name) for name in remote)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("http://config.example/", "https:// is needed"),
        ("https://", "not a URL"),
        ("https://[a/", "not a URL"),
        ("redis://store.example/0", "names no key of the store, as in redis://HOST/0#KEY"),
        ("redis://store.example/a#k", "not the URL of a store"),
        ("https://node:secret@config.example/", "put the password into the environment"),
        ("https://node:${NO_SUCH_VARIABLE}@config.example/", "no variable NO_SUCH_VARIABLE"),
    ],
)
def test_wrong_sources(source: str, words: str) -> None:
    assert words in problem(f"--config={source}", "--config-state=state")


def test_state_is_needed() -> None:
    """What is on another machine may be away at a restart."""
    assert "needs --config-state FILE" in problem("--config=https://config.example/")


@pytest.mark.parametrize("name", ["interval", "spread", "state", "key", "ca"])
def test_needs_config(name: str) -> None:
    """An option about the source of nothing is a mistake."""
    assert problem(f"--config-{name}=1") == f"--config-{name} needs --config"


def test_keys(tmp_path: Path) -> None:
    Path("socks.toml").write_text("[log]\n")
    assert "none.pem: no such file" in problem("--config=socks.toml", "--config-key=none.pem")
    Path("wrong.pem").write_text("no key")
    assert "not a public key in PEM" in problem("--config=socks.toml", "--config-key=wrong.pem")
    assert "none.pem: no such file" in problem(
        "--config=https://a/", "--config-state=state", "--config-ca=none.pem"
    )


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``socksproxy check`` takes what --config takes."""
    with config_server(tmp_path, b"[timeouts]\nidle-timeout = 'soon'\n") as server:
        assert main(["check", server.url, f"--config-ca={server.ca_file}"]) == 1
        assert "idle-timeout" in capsys.readouterr().err
        server.content = b"[timeouts]\nidle-timeout = 5\n"
        assert main(["check", server.url, f"--config-ca={server.ca_file}"]) == 0
    Path("conf").mkdir()
    Path("conf/socks.toml").write_text("[log]\n")
    assert main(["check", "conf"]) == 0
