"""Whether a destination is the proxy itself."""

from __future__ import annotations

import errno
import socket

import pytest

from socksproxy.net.names import plain
from socksproxy.net.own_listeners import OwnListeners, Place, path_of

OTHERS = "192.0.2.1"  # for documentation: nobody's, so not this machine's


@pytest.fixture
def own() -> OwnListeners:
    return OwnListeners()


def test_none(own: OwnListeners) -> None:
    assert not own.include("127.0.0.1", 1080)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"])
def test_one_address(own: OwnListeners, host: str) -> None:
    own.add(host, 1080)
    assert own.include(host, 1080)
    assert not own.include(host, 1081)
    assert not own.include("127.0.0.2", 1080)
    own.discard(host, 1080)
    assert not own.include(host, 1080)


@pytest.mark.parametrize("listening", ["127.0.0.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("destination", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_mapped(own: OwnListeners, listening: str, destination: str) -> None:
    own.add(listening, 1080)
    assert own.include(destination, 1080)
    own.discard(destination, 1080)
    assert not own.include(listening, 1080)


@pytest.mark.parametrize("destination", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0", "::"])
def test_wildcard_as_destination(own: OwnListeners, listening: str, destination: str) -> None:
    """The kernel connects these to loopback."""
    own.add(listening, 1080)
    assert own.include(destination, 1080)
    assert not own.include(destination, 1081)


@pytest.mark.parametrize("listening", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
def test_wildcard_listener(own: OwnListeners, listening: str) -> None:
    """Every address of this machine leads to it, and no other's does."""
    own.add(listening, 1080)
    for host in ("127.0.0.1", "127.8.8.8", "::ffff:127.0.0.1"):
        assert own.include(host, 1080)
        assert not own.include(host, 1081)
    assert not own.include(OTHERS, 1080)
    assert not own.include("2001:db8::1", 1080)
    own.discard(listening, 1080)
    assert not own.include("127.0.0.1", 1080)


def test_discarding_what_is_not_there(own: OwnListeners) -> None:
    own.discard("127.0.0.1", 1080)
    own.discard("0.0.0.0", 1080)


class Machine:
    """Another machine's addresses in place of this one's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: set[str] = set()
        monkeypatch.setattr(socket, "socket", lambda *_: Probe(self.addresses))


class Probe:
    """A socket that can be bound to some addresses."""

    def __init__(self, addresses: set[str]) -> None:
        self._addresses = addresses

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def bind(self, address: tuple[str, int]) -> None:
        if address[0] not in self._addresses:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")


class TestEverywhere:
    """A listener on a wildcard address: the kernel alone knows which addresses lead there."""

    @pytest.mark.parametrize("listening", ["0.0.0.0", "::"])
    def test_comes_and_goes(self, own: OwnListeners, listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """An address that this machine gets later (DHCP, VRRP) leads to the proxy from then on."""
        own.add(listening, 1080)
        machine = Machine(monkeypatch)
        for address in (OTHERS, "2001:db8::1"):
            for _ in range(2):
                assert not own.include(address, 1080)
                machine.addresses.add(address)
                assert own.include(address, 1080)
                assert not own.include(address, 1081)
                machine.addresses.clear()

    def test_asked_only_for_our_ports(self, own: OwnListeners, monkeypatch: pytest.MonkeyPatch) -> None:
        """A session with another port costs no system call."""
        own.add("0.0.0.0", 1080)
        monkeypatch.setattr(socket, "socket", None)
        assert not own.include(OTHERS, 443)


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (("192.0.2.1", 1080), ("office", "192.0.2.1:1080")),
        (("192.0.2.2", 1080), ("192.0.2.2:1080",)),
        (("192.0.2.2", 1081), ("everywhere", "192.0.2.2:1081")),
        (("2001:db8::1", 1081), ("everywhere", "[2001:db8::1]:1081")),
        (("2001:db8::1", 1080), ("[2001:db8::1]:1080",)),
        ("/run/socks", ("staff", "unix:/run/socks", "unix")),
        ("/run/other", ("unix:/run/other", "unix")),
        ("", ("unix",)),
    ],
)
def test_names(own: OwnListeners, reached: Place, words: tuple[str, ...]) -> None:
    """Rules know a listener by its name, and by where it was reached."""
    own.call(("::ffff:192.0.2.1", 1080), "office")
    own.call(("0.0.0.0", 1081), "everywhere")
    own.call("/run/socks", "staff")
    assert own.words_for(reached) == words


@pytest.mark.parametrize(
    ("name", "path"),
    [("/run/s", "/run/s"), (b"/run/\xff", "/run/\udcff"), (b"\0socks", "@socks"), ("", ""), (None, "")],
)
def test_paths(name: str | bytes | None, path: str) -> None:
    assert path_of(name) == path


@pytest.mark.parametrize(
    ("reached", "word"), [("192.0.2.1", "four"), ("2001:db8::1", "six"), ("::ffff:192.0.2.1", "four")]
)
def test_names_of_both_families(own: OwnListeners, reached: str, word: str) -> None:
    """Two wildcards on one port are two listeners, with a name each."""
    own.call(("0.0.0.0", 1080), "four")
    own.call(("::", 1080), "six")
    assert own.words_for((plain(reached), 1080))[0] == word
    own.call(("0.0.0.0", 1080), None)
    assert own.words_for((plain(reached), 1080))[0] == "six"


def test_one_of_two_families_closes(own: OwnListeners) -> None:
    """The other listener is still the proxy itself."""
    own.add("0.0.0.0", 1080)
    own.add("::", 1080)
    own.discard("::", 1080)
    assert own.include("127.0.0.1", 1080)
    own.discard("0.0.0.0", 1080)
    assert not own.include("127.0.0.1", 1080)
