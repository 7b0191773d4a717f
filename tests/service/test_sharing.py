"""A service that shares a store with others, while it is told to reach the store in another way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from socksproxy.shared.nodes import announce
from tests.service.test_reload import at, listening, serving
from tests.support.proxy import until
from tests.support.valkey import Valkey

_SHARED = '[node]\nname = "n1"\n[shared]\nstore = "unix://:{password}@{path}"\nsite = "{site}"\n'


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory() as directory:
        server = Valkey(Path(directory))
        yield server
        server.stop()


@pytest.mark.parametrize(
    ("password", "site", "known"),
    [("new", "here", {"n1": "me"}), ("old", "there", {})],
    ids=["password", "site"],
)
@pytest_twisted.ensureDeferred
async def test_other_way(
    valkey: Valkey, tmp_path: Path, password: str, site: str, known: dict[str, str]
) -> None:
    """A node that gets another password for its store stays known there; one that goes elsewhere does not."""
    client = valkey.client()
    client.execute_command("ACL", "SETUSER", "default", ">old", ">new")
    words = {"path": valkey.path}

    def config(password: str, site: str) -> str:
        return listening(at(0), rest=_SHARED.format(**words, password=password, site=site))

    async with serving(tmp_path / "socks.toml", config("old", "here")) as served:
        store = served.service._store
        assert store is not None
        await until(lambda: store.up)
        served.service.announcing.stop()
        served.service.announcing.follow = lambda wanted: None  # type: ignore[method-assign]
        await announce(store, b"me")
        (column,) = client.zrange("sp:{here}:1:nodes", 0, -1)
        await served.reload(config(password, site))
        await until(lambda: column not in client.zrange("sp:{here}:1:nodes", 0, -1))
        assert client.hgetall("sp:{here}:1:about") == known
