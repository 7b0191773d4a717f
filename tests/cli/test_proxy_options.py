"""Where the proxy is, and who logs in: the options of commands that use one."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from socksproxy.cli.failure import CommandFailed
from socksproxy.cli.proxy_options import add_to, proxy_of, read_login
from socksproxy.client.proxy import Proxy
from socksproxy.wire.password import Credentials

VARIABLES = ("ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def parsed(*arguments: str) -> Proxy:
    parser = ArgumentParser()
    add_to(parser)
    return proxy_of(parser.parse_args(arguments), 7.0)


def test_without_a_scheme() -> None:
    """SOCKS5 is meant."""
    assert parsed("--proxy", "127.0.0.1:1080") == parsed("--proxy", "socks5://127.0.0.1:1080")
    assert parsed("--proxy", "127.0.0.1:1080").timeout == 7.0


def test_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins; NO_PROXY does not count."""
    monkeypatch.setenv("ALL_PROXY", "socks5://bob:secret@127.0.0.1:1080")
    named = parsed()
    assert named.login is not None
    monkeypatch.setenv("NO_PROXY", "*")
    assert parsed() == named
    assert parsed("--proxy", "127.0.0.2").login is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is no proxy: use --proxy URL, or set ALL_PROXY"),
        (["--proxy", "gopher://127.0.0.1"], "--proxy: "),
        (["--proxy", "bob:secret@127.0.0.1"], "--login-file"),
        (["--proxy", "127.0.0.1", "--login-file", "missing"], "--login-file missing: "),
    ],
)
def test_wrong(arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password on the command line is refused, and is not shown again."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandFailed) as caught:
        parsed(*arguments)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_login_file(end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A password may have colons. That others may read it is a warning."""
    file = tmp_path / "login"
    file.write_bytes(b"bob:a:b" + end.encode())
    file.chmod(0o600)
    login = read_login(str(file))
    assert login.credentials == Credentials(b"bob", b"a:b")
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    assert read_login(str(file)).credentials == login.credentials
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", [b"", b"bob", b":pa55word", b"bob:pa55word\nalice:other", b"b" * 300 + b":pa55word"]
)
def test_wrong_login_file(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "login"
    file.write_bytes(text)
    with pytest.raises(CommandFailed) as caught:
        read_login(str(file))
    assert "--login-file" in str(caught.value)
    assert "pa55word" not in str(caught.value)
