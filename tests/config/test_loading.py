"""Reading the configuration file: see :mod:`socksproxy.config.loading`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from socksproxy.config.loading import Unreadable, read_file


def test_names_count_from_the_directory(tmp_path: Path) -> None:
    (tmp_path / "socks.toml").write_bytes(b"[log]\nlog = 'a'\n")
    content, configured = read_file("socks.toml", directory=str(tmp_path))
    assert content == b"[log]\nlog = 'a'\n"
    assert configured.said == {"log": "a"}


def test_content_that_is_known() -> None:
    """A worker reads what its supervisor has read, and no file."""
    assert read_file("/nowhere", b"[udp]\nudp-relatch = true\n")[1].said == {"udp-relatch": True}


@pytest.mark.parametrize(
    ("name", "reason"), [("none.toml", "no such file or directory"), ("a\0b", "not a path")]
)
def test_unreadable(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable) as caught:
        read_file(name, directory=str(tmp_path))
    assert str(caught.value) == f"{name}: {reason}"


def test_without_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has none by itself."""
    monkeypatch.setitem(sys.modules, "socksproxy.config.file", None)
    with pytest.raises(Unreadable, match=r"socks.toml: the extra \[config\] is not installed"):
        read_file("socks.toml", b"")
