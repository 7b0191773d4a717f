"""A shared store of Debian's Redis with Sentinel, which fails over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_twisted
from cryptography.x509 import IPAddress
from cryptography.x509.oid import ExtendedKeyUsageOID

from socksproxy.shared.asking import ADMITTED, Need, StoreProblem
from socksproxy.shared.store import check_store
from tests.support.authority import Authority
from tests.support.programs import require
from tests.support.proxy import Playing, closed_port, until
from tests.support.redises import Redises
from tests.support.stores import CALM, Nodes, asked, settings_of

BOB = Need("n:user bob sessions", 10)


@pytest_twisted.inlineCallbacks
def test_tls(tmp_path: Path) -> Playing:
    """A node uses TLS, and sees whose certificate the store has."""
    authority, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    here = [IPAddress(ip_address("127.0.0.1"))]
    certificate = authority.issue("store", alternatives=here, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    port = closed_port()
    server = subprocess.Popen(
        [
            *(
                require("redis-server"),
                "--port",
                "0",
                "--tls-port",
                str(port),
                "--save",
                "",
                "--dir",
                tmp_path,
            ),
            *("--tls-cert-file", certificate, "--tls-key-file", certificate),
            *("--tls-ca-cert-file", authority.ca_file, "--tls-auth-clients", "no"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        nodes = Nodes(f"rediss://127.0.0.1:{port}/0", ca_file=str(authority.ca_file))
        yield nodes.start()
        yield until(lambda: nodes.one.up)
        assert (yield asked(nodes.one, BOB)) == ADMITTED
        yield nodes.stop()
        for url, ca_file, words in (
            (f"rediss://127.0.0.1:{port}/0", foreign.ca_file, "certificate"),
            (f"rediss://localhost:{port}/0", authority.ca_file, "certificate"),
            (f"redis://127.0.0.1:{port}/0", None, "reset|closed"),
        ):
            settings = settings_of(url, ca_file=None if ca_file is None else str(ca_file))
            with pytest.raises(StoreProblem, match=words):
                check_store(settings)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def redises(tmp_path: Path) -> Iterator[Redises]:
    servers = Redises(tmp_path)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest_twisted.inlineCallbacks
def test_failover(redises: Redises) -> Playing:
    """Nodes follow a failover by themselves, and the counts are right on the server that takes over."""
    url = f"redis+sentinel://127.0.0.1:{redises.sentinel}/main"
    nodes = Nodes(url, 2, CALM._replace(probe=0.1))
    yield nodes.start()
    one, other = nodes.stores
    for store in (one, other, one):
        assert (yield asked(store, BOB)) == ADMITTED
    redises.processes[0].kill()
    for store in (one, other):
        while store.up:
            yield asked(store, BOB)
    one.count(BOB.key, -1)
    other.count(BOB.key, 2)
    yield until(lambda: one.up and other.up)
    four = Need(BOB.key, 4)
    assert (yield asked(one, four)) == 1
    assert (yield asked(one, Need(BOB.key, 5))) == ADMITTED
    client = redises.client(redises.second)
    assert sorted(map(int, client.hvals("sp:{socks}:1:n:user bob sessions"))) == [2, 3]
    yield nodes.stop()
