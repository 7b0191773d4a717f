"""Wherever an operator names a file, a FIFO there costs one clear line, and blocks nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from socksproxy.app import Options
from socksproxy.net.resources import CheckedResources, Resources
from socksproxy.workers.descriptor_passing import SupervisorResources

WRONG = "is not a regular file"


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[str]:
    """A FIFO that nothing writes to; reading and writing it at the end frees a thread that waits there."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("resources", [Resources, CheckedResources, SupervisorResources])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--config={}"],
        ["--auth=htpasswd:{}"],
        ["--auth=file:{}"],
        ["--auth=tls:ca={}"],
        ["--auth=gssapi:keytab={}:service=socks"],
        ["--listen=ssl:0:interface=127.0.0.1:privateKey={}"],
        ["--listen=ssl:0:interface=127.0.0.1:privateKey={key}:certKey={}"],
        ["--listen=ssl:0:interface=127.0.0.1:privateKey={key}:extraCertChain={}"],
        ["--listen=ssl:0:interface=127.0.0.1:privateKey={key}:dhParameters={}"],
        ["--listen=haproxy:ssl:0:interface=127.0.0.1:privateKey={}"],
        ["--listen=named=ssl:0:interface=127.0.0.1:privateKey={}"],
    ],
    ids=" ".join,
)
def test_option(
    fifo: str, arguments: list[str], resources: Callable[[MemoryReactorClock], Resources]
) -> None:
    """Each option that names a file reports it."""
    if "gssapi" in arguments[0]:
        pytest.importorskip("gssapi")
    reactor = MemoryReactorClock()
    options = Options(reactor, resources(reactor))
    key = Path(fifo).with_name("key.pem")
    key.write_text("no key")
    with pytest.raises(UsageError, match=WRONG):
        options.parseOptions([argument.format(fifo, key=key) for argument in arguments])


def test_default_key(fifo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``ssl:`` endpoint without a key reads ``server.pem``."""
    monkeypatch.chdir(Path(fifo).parent)
    os.link(fifo, "server.pem")
    with pytest.raises(UsageError, match=WRONG):
        Options(MemoryReactorClock()).parseOptions(["--listen=ssl:0:interface=127.0.0.1"])


@pytest.mark.parametrize(
    "text",
    [
        '[limits]\nquota-file = "{}"',
        '[authentication]\nauth = ["htpasswd:{}"]',
        '[sets.a]\nnames-file = "{}"',
        '[sets.a]\nnetworks-file = ["{}"]',
    ],
)
def test_file(fifo: str, text: str) -> None:
    """So does each key of the configuration file."""
    config = Path(fifo).with_name("socks.toml")
    config.write_text(text.format(fifo))
    with pytest.raises(UsageError, match=r"socks\.toml:2: .*(is not a regular file|not a file)"):
        Options(MemoryReactorClock()).parseOptions([f"--config={config}"])
