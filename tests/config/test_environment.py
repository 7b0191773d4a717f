"""Values from the environment: see :mod:`socksproxy.config.environment`."""

from __future__ import annotations

from pathlib import Path

import pytest

from socksproxy.config.environment import MOST_CHARACTERS, expanded
from socksproxy.values.errors import ConfigError
from socksproxy.wire.password import Credentials
from socksproxy.wire.words import Address, AddressType

from ..support.users_files import BOB
from .test_upstreams import parsed, problems


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$2y$12$abc", "$2y$12$abc"),
        ("$HOME and $$", "$HOME and $$"),
        ("${SOCKS_A}", "one"),
        ("a${SOCKS_A}b${SOCKS_B}", "aoneb${SOCKS_A}"),
    ],
)
def test_expanded(text: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables in braces count, once; all else stays."""
    monkeypatch.setenv("SOCKS_A", "one")
    monkeypatch.setenv("SOCKS_B", "${SOCKS_A}")
    assert expanded(text) == meant


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (7, "not text in quotes"),
        ("${SOCKS_LOST}", "no variable SOCKS_LOST"),
        ("${SOCKS_EMPTY}", "no variable SOCKS_EMPTY"),
        ("${}", "begins the name"),
        ("${A B}", "begins the name"),
        ("${SOCKS_A:-x}", "begins the name"),
        ("${SOCKS_LINES}", "SOCKS_LINES of the environment is not one line"),
        ("${SOCKS_LONG}", "SOCKS_LONG of the environment is not one line"),
        ("${SOCKS_BYTES}", "SOCKS_BYTES of the environment is not UTF-8"),
    ],
)
def test_mistakes(text: object, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told by the variable's name, and nothing of its value is."""
    monkeypatch.setenv("SOCKS_EMPTY", "")
    monkeypatch.setenv("SOCKS_LINES", "topsecret\nx")
    monkeypatch.setenv("SOCKS_LONG", "topsecret" * MOST_CHARACTERS)
    monkeypatch.setenv("SOCKS_BYTES", "topsecret\udcff")
    with pytest.raises(ConfigError, match=why) as caught:
        expanded(text)
    assert "topsecret" not in caught.value.reason


CONFIGURED = """
[upstreams.office]
type = "socks5"
address = "${SOCKS_HOST}:1080"
login = { user = "${SOCKS_USER}", password-file = "${CREDENTIALS_DIRECTORY}/office" }
[users.bob]
password = "${SOCKS_BOB}"
"""


def test_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marked keys take them, and a reload finds another credential."""
    monkeypatch.setenv("SOCKS_HOST", "proxy.example.org")
    monkeypatch.setenv("SOCKS_USER", "ann")
    monkeypatch.setenv("SOCKS_BOB", BOB.decode().strip().partition(":")[2])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for secret in (b"first", b"second"):
        (tmp_path / "office").write_bytes(secret + b"\n")
        office = parsed(CONFIGURED, tmp_path).plan.settings.upstreams["office"]
        assert office.address == Address("proxy.example.org", 1080, AddressType.DOMAIN_NAME)
        assert office.login == Credentials(b"ann", secret)


def test_mistakes_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are told with their places; a hash that is wrong is not shown."""
    for name in ("SOCKS_HOST", "SOCKS_USER", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOCKS_BOB", "topsecret")
    errors = problems(CONFIGURED, tmp_path)
    assert len(errors) == 4
    assert "topsecret" not in "".join(errors)
    for name in ("SOCKS_HOST", "SOCKS_USER", "CREDENTIALS_DIRECTORY"):
        assert any(f"no variable {name}" in error for error in errors)
