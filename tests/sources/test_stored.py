"""A configuration at a key of a store: a real Valkey."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from socksproxy.sources.found import SourceProblem
from socksproxy.sources.stored import StoreSource
from socksproxy.values.shared import StoreAddress
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory() as directory:
        server = Valkey(Path(directory))
        yield server
        server.stop()


def test_key(valkey: Valkey) -> None:
    """What the key holds, and what is wrong with it."""
    source = StoreSource(StoreAddress.of(valkey.url), "config", 10)
    client: Any = redis.Redis(unix_socket_path=valkey.path)
    with pytest.raises(SourceProblem, match="the key is missing or empty"):
        source.look(None)
    client.set("config", b"[log]\n\xff")
    first = source.look(None)
    assert first.content == b"[log]\n\xff"
    assert source.look(first).same(first)
    client.set("config", b"x" * 11)
    with pytest.raises(SourceProblem, match="is larger than 10 bytes"):
        source.look(first)
    client.delete("config")
    client.hset("config", "a", "b")
    with pytest.raises(SourceProblem, match="WRONGTYPE"):
        source.look(first)
    client.close()


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(SourceProblem, match="no such file"):
        StoreSource(StoreAddress.of(f"unix://{tmp_path}/none.sock"), "config", 10).look(None)
