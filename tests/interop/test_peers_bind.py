"""
Where other servers fail at BIND and at Tor's RESOLVE: for each fault a test in which it would show.

The servers, their versions and how the faults were found are those of the comparison in the README.
"""

from __future__ import annotations

import socket

import pytest
import pytest_twisted

from socksproxy import BindSettings
from socksproxy.wire.words import Address, Command, Reply

from ..conftest import Serve
from ..support.hosts import Hosts
from ..support.proxy import PATIENCE, Playing, Proxy, ask4, ask5, reply4, reply5, until
from ..support.relay import read_exactly

NAME = "ftp.example"
HOSTS = {NAME: ["127.0.0.2"]}


def meet(address: Address, source: str) -> socket.socket:
    return socket.create_connection((address.host, address.port), PATIENCE, source_address=(source, 0))


@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_first_reply_names_the_listener(serve: Serve, version: int) -> Playing:
    """3proxy's first reply names the proxy's own port, to which no peer should go; others name 0.0.0.0."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        ask, again = (ask4, reply4) if version == 4 else (ask5, reply5)
        code, address = ask(sock, "127.0.0.2", 21, Command.BIND)
        assert code == (90 if version == 4 else 0)
        assert address.port not in (0, 21, proxy.address[1])
        assert address.host == "127.0.0.1"
        with meet(address, "127.0.0.2") as peer:
            assert again(sock)[0] == code
            peer.sendall(b"150 here it comes")
            assert read_exactly(sock, 17) == b"150 here it comes"

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest_twisted.inlineCallbacks
def test_second_reply_names_the_peer(serve: Serve) -> Playing:
    """A server that tells its own address again, or the one asked for, leaves the client without the port."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        _, address = ask5(sock, "127.0.0.2", 21, Command.BIND)
        with meet(address, "127.0.0.2") as peer:
            assert reply5(sock) == (0, Address.of("127.0.0.2", peer.getsockname()[1]))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest_twisted.inlineCallbacks
def test_socks4_bind(serve: Serve) -> Playing:
    """Twisted's own server raises a TypeError, answers nothing, and leaves the port open."""
    proxy: Proxy = yield serve()
    with proxy.connect() as sock:
        code, address = yield proxy.play(ask4, sock, "127.0.0.1", 21, Command.BIND)
        assert code == 90
    yield proxy.record()
    with pytest.raises(ConnectionRefusedError):
        meet(address, "127.0.0.1")


@pytest_twisted.inlineCallbacks
def test_bind_by_4a_name(serve: Serve) -> Playing:
    """Dante takes 0.0.0.1 for the peer's address, and refuses the peer in its second reply."""
    proxy: Proxy = yield serve(resolver=Hosts(dict(HOSTS)))

    def scenario(sock: socket.socket) -> None:
        code, address = ask4(sock, NAME, 21, Command.BIND)
        assert code == 90
        with meet(address, "127.0.0.2") as peer:
            assert reply4(sock) == (90, Address.of(*peer.getsockname()))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest.mark.parametrize("version", [4, 5])
@pytest_twisted.inlineCallbacks
def test_bind_checks_the_peer(serve: Serve, version: int) -> Playing:
    """gost lets in whoever comes first; Dante and 3proxy give up when that is somebody else."""
    proxy: Proxy = yield serve()

    def scenario(sock: socket.socket) -> None:
        ask, again = (ask4, reply4) if version == 4 else (ask5, reply5)
        code, address = ask(sock, "127.0.0.2", 21, Command.BIND)
        with meet(address, "127.0.0.3") as stranger:
            assert stranger.recv(1) == b""
        with meet(address, "127.0.0.2") as peer:
            assert again(sock) == (code, Address.of(*peer.getsockname()))

    with proxy.connect() as sock:
        yield proxy.play(scenario, sock)


@pytest_twisted.inlineCallbacks
def test_bind_is_served(serve_as: Serve) -> Playing:
    """sing-box, Xray, hev, microsocks, pproxy, ssh and Tor do not serve it, some without saying so."""
    proxy: Proxy = yield serve_as(bind=BindSettings(addresses=("127.0.0.1",)))
    for ask, code in ((ask4, 90), (ask5, 0)):
        with proxy.connect() as sock:
            assert (yield proxy.play(ask, sock, "0.0.0.0", 0, Command.BIND))[0] == code


@pytest_twisted.inlineCallbacks
def test_resolve_is_no_connect(serve: Serve) -> Playing:
    """Xray connects to the name's port, which nobody asked for; others answer 7 or close."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        proxy: Proxy = yield serve(resolver=Hosts({NAME: ["127.0.0.1"]}))
        with proxy.connect() as sock:
            answer = yield proxy.play(ask5, sock, NAME, port, Command.RESOLVE)
            assert answer == (Reply.SUCCEEDED, Address.of("127.0.0.1", 0))
        yield until(lambda: not proxy.sessions.live)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest_twisted.inlineCallbacks
def test_whole_ipv6_answer(serve_as: Serve) -> Playing:
    """Tor once told the first four bytes of an IPv6 address as the answer (its issue 31115)."""
    proxy: Proxy = yield serve_as(resolver=Hosts({NAME: ["2001:db8::1234:5678"]}))
    with proxy.connect() as sock:
        answer = yield proxy.play(ask5, sock, NAME, 0, Command.RESOLVE)
    assert answer == (Reply.SUCCEEDED, Address.of("2001:db8::1234:5678", 0))


@pytest_twisted.inlineCallbacks
def test_pointer_of_binary_ipv6(serve_as: Serve) -> Playing:
    """Tor refuses an IPv6 address in its binary form (its issue 32315): the address is asked for here."""
    from ..support.hosts import Both

    proxy: Proxy = yield serve_as(resolver=Both({}, {"2001:db8::1": NAME}))
    with proxy.connect() as sock:
        code, address = yield proxy.play(ask5, sock, "2001:db8::1", 0, Command.RESOLVE_PTR)
    assert (code, address.host) == (Reply.SUCCEEDED, NAME)
