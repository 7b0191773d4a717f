"""What sessions leave from, where an address is chosen: ``docs/outgoing.rst`` tells it to operators."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy import BindSettings, RulePolicy
from socksproxy.cli import main
from socksproxy.policy.rules import Rule
from socksproxy.wire.words import Command, Reply
from tests.conftest import Serve
from tests.policy.test_effects import abroad, meet
from tests.support.origin import Origin, echo
from tests.support.proxy import KINDS, PATIENCE, Playing, Proxy, ask5, echoes, reply5
from tests.support.udp import Client as Datagrams, Echo, kinds, serving

ALL = "tcp:0:interface=0.0.0.0"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "config" / "addresses.toml"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


def listening(kind: str) -> str:
    return f"haproxy:{ALL}" if kind == "wrapped" else ALL


def reach(proxy: Proxy, host: str) -> socket.socket:
    """A client that has reached the proxy at *host*, directly or at its balancer."""
    sock = socket.create_connection((host, proxy.address[1]), PATIENCE)
    if proxy.kind == "wrapped":
        header = f"PROXY TCP4 127.0.0.1 {host} {sock.getsockname()[1]} {proxy.address[1]}\r\n"
        sock.sendall(header.encode("ascii"))
    return sock


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["server", "rule", "user"])
@pytest_twisted.inlineCallbacks
def test_same(serve_as: Serve, origin: Origin, kind: str, where: str) -> Playing:
    by_place: dict[str, dict[str, Any]] = {
        "server": {"outgoing": "same"},
        "rule": {"policy": RulePolicy([Rule(name="out", allow=True, outgoing=["same"])])},
        "user": {"portal": abroad("same")},
    }
    proxy: Proxy = yield serve_as(kind, listen=listening(kind), **by_place[where])
    hosts = [f"127.0.3.{number}" for number in (1, 2, 200)]
    for host in hosts:
        with reach(proxy, host) as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock)
    assert [host for host, _ in origin.peers] == hosts
    left = []
    for number in range(len(hosts)):
        record = yield proxy.record(number)
        left.append(record["outgoing"].rpartition(":")[0])
    assert sorted(left) == hosts  # sessions end in any order


@pytest_twisted.inlineCallbacks
def test_the_balancer_s_address_is_not_ours(serve_as: Serve, origin: Origin) -> Playing:
    """The connection fails; it leaves from no other address."""
    proxy: Proxy = yield serve_as("wrapped", listen=listening("wrapped"), outgoing="same")
    with socket.create_connection(("127.0.0.1", proxy.address[1]), PATIENCE) as sock:
        sock.sendall(b"PROXY TCP4 127.0.0.1 192.0.2.77 4711 1080\r\n")
        assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == Reply.GENERAL_FAILURE
    assert not origin.peers


@pytest.mark.parametrize("kind", ["accepted", "transports"])
@pytest_twisted.inlineCallbacks
def test_a_family_without_an_address_is_refused(serve_as: Serve, origin: Origin, kind: str) -> Playing:
    said = {"outgoing": ["127.0.0.7"], "portal": abroad("::1")}
    proxy: Proxy = yield serve_as(kind, **said)
    for command in (Command.CONNECT, Command.BIND):
        with proxy.connect() as sock:
            code, _ = yield proxy.play(ask5, sock, "127.0.0.1", origin.port, command)
            assert code == Reply.ADDRESS_TYPE_NOT_SUPPORTED
    assert not origin.peers


@pytest.mark.parametrize("kind", ["accepted", "transports"])
@pytest_twisted.inlineCallbacks
def test_in_turn(serve_as: Serve, origin: Origin, kind: str) -> Playing:
    hosts = ["127.0.0.7", "127.0.0.8", "127.0.0.9"]
    proxy: Proxy = yield serve_as(kind, outgoing=hosts)
    for _ in range(6):
        with proxy.connect() as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock)
    seen = [host for host, _ in origin.peers]
    assert sorted(seen) == sorted(hosts * 2)
    assert seen[:3] == seen[3:]


@pytest.mark.parametrize("bind", [BindSettings(), BindSettings(addresses=("127.0.0.6",))])
@pytest_twisted.inlineCallbacks
def test_bind(serve_as: Serve, bind: BindSettings) -> Playing:
    """BIND listens on the address that the client has reached, and tells the client so."""
    proxy: Proxy = yield serve_as(listen=ALL, outgoing=["same"], bind=bind)

    def scenario(sock: socket.socket) -> None:
        code, place = ask5(sock, "127.0.0.1", 0, Command.BIND)
        assert (code, place.host) == (0, "127.0.3.5")
        with meet(place.host, place.port):
            assert reply5(sock)[0] == 0

    with reach(proxy, "127.0.3.5") as sock:
        yield proxy.play(scenario, sock)


def many(proxy: Any) -> None:
    """The datagrams of an association leave from one address, whichever that is."""
    with Echo() as one, Echo("127.0.0.2") as two, Datagrams(proxy) as client:
        for destination in (one, two, one):
            assert client.ask(b"x", destination.address) == b"x"
        assert len({host for each in (one, two) for _, (host, _) in each.seen}) == 1


class Reached:
    """A proxy as its client names it."""

    def __init__(self, *address: Any) -> None:
        self.address = address


def reached(proxy: Any) -> None:
    with Echo() as echo, Datagrams(Reached("127.0.3.9", proxy.address[1])) as client:
        assert client.ask(b"x", echo.address) == b"x"
        assert {host for _, (host, _) in echo.seen} == {"127.0.3.9"}


@kinds
@pytest_twisted.ensureDeferred
async def test_datagrams(kind: str) -> None:
    async with serving(kind, outgoing=["127.0.0.7", "127.0.0.8", "random"]) as proxy:
        await proxy.run(many)
    async with serving(kind, listen=ALL, outgoing="same") as proxy:
        await proxy.run(reached)


@pytest_twisted.inlineCallbacks
def test_after_a_reload(serve_as: Serve, origin: Origin) -> Playing:
    proxy: Proxy = yield serve_as(listen=ALL)
    for outgoing, source in (("same", "127.0.3.4"), (["127.0.0.9"], "127.0.0.9"), ([], "127.0.0.1")):
        proxy.factory.reconfigure(outgoing=outgoing)
        with reach(proxy, "127.0.3.4") as sock:
            assert (yield proxy.play(ask5, sock, "127.0.0.1", origin.port))[0] == 0
            yield proxy.play(echoes, sock)
        assert origin.peers[-1][0] == source


def test_the_example(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The file of the docs, with 200 addresses of loopback for those of the docs."""
    config = tmp_path / "socks.toml"
    text = EXAMPLE.read_text("utf-8").replace("192.0.2.0/24", "127.0.2.0/24")
    config.write_text(text, "utf-8")
    assert main(["check", str(config)]) == 0
    capsys.readouterr()
    assert main(["explain", str(config), "--from", "127.0.2.9", "connect", "203.0.113.9:443"]) == 0
    assert "outgoing: the address that the client has reached (the server)" in (capsys.readouterr().out)
