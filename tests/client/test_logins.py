"""The login by GSSAPI, as far as it needs no Kerberos."""

from __future__ import annotations

import sys

import pytest

from socksproxy import client
from socksproxy.client import GSSAPILogin


def test_offer() -> None:
    """GSSAPI alone is offered: a proxy that takes all clients would not protect anything."""
    pytest.importorskip("gssapi")
    assert GSSAPILogin("localhost").methods == b"\x01"


def test_wrong_protection() -> None:
    """The parameter is named."""
    with pytest.raises(ValueError, match="protection='some'"):
        GSSAPILogin("localhost", protection="some")  # type: ignore[arg-type]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is told with the way to install it."""
    monkeypatch.setitem(sys.modules, "socksproxy.client.gssapi", None)
    monkeypatch.delattr(client, "gssapi", raising=False)
    with pytest.raises(ImportError, match=r"twisted-socksproxy\[gssapi\]"):
        GSSAPILogin("localhost")
