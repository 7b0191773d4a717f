"""The policy that holds when nobody has made another."""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from socksproxy.identity import Client
from socksproxy.net.own_listeners import OwnListeners
from socksproxy.policy import DefaultPolicy, IPolicy
from socksproxy.wire.words import Address, Command

LOCAL = [Client("127.0.0.1", 5000), Client("::1", 5000), Client("::ffff:127.0.0.1", 5000), Client(None)]
REMOTE = [
    Client("192.0.2.9", 5000),
    Client("10.0.0.9", 5000),
    Client("2001:db8::9", 5000),
    Client("64:ff9b::7f00:1", 5000),
    Client("2002:7f00:1::1", 5000),
    Client(""),  # not known yet
]
SPECIAL = [
    *("127.0.0.1", "0.0.0.0", "169.254.1.1", "169.254.169.254", "224.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"),
]
ORDINARY = ["192.0.2.1", "10.0.0.1", "8.8.8.8", "2001:db8::1", "fd00::1", "::ffff:8.8.8.8"]


def ids(client: Client) -> str:
    return str(client)


def test_interface() -> None:
    verifyObject(IPolicy, DefaultPolicy())


class TestClient:
    """Who asks, and how a log shows it."""

    @pytest.mark.parametrize("client", LOCAL, ids=ids)
    def test_local(self, client: Client) -> None:
        assert client.local

    @pytest.mark.parametrize("client", REMOTE, ids=ids)
    def test_remote(self, client: Client) -> None:
        assert not client.local

    @pytest.mark.parametrize(
        ("client", "text"),
        [
            (Client("192.0.2.9", 5000), "192.0.2.9:5000"),
            (Client("2001:db8::9", 5000), "[2001:db8::9]:5000"),
            (Client("192.0.2.9", 5000, "fred"), "192.0.2.9:5000"),
            (Client(None), "unix"),
        ],
    )
    def test_text(self, client: Client, text: str) -> None:
        assert str(client) == text


@pytest.mark.parametrize("command", Command)
class TestSpecial:
    """What a machine offers to itself alone is not for the network: every command goes by this."""

    @pytest.mark.parametrize("client", REMOTE, ids=ids)
    @pytest.mark.parametrize("host", SPECIAL)
    def test_denied_to_others(self, command: Command, client: Client, host: str) -> None:
        if command is Command.BIND and host in ("0.0.0.0", "::"):
            pytest.skip("names no destination: whom a BIND waits for has its own rule")
        assert not DefaultPolicy().permits(client, command, Address.of(host, 80))
        assert not DefaultPolicy(OwnListeners()).permits(client, command, Address.of(host, 80))

    @pytest.mark.parametrize("client", LOCAL, ids=ids)
    @pytest.mark.parametrize("host", SPECIAL)
    def test_permitted_to_our_own(self, command: Command, client: Client, host: str) -> None:
        """They reach it without a proxy, too."""
        assert DefaultPolicy(OwnListeners()).permits(client, command, Address.of(host, 80))

    @pytest.mark.parametrize("host", SPECIAL)
    def test_allow_special(self, command: Command, host: str) -> None:
        assert DefaultPolicy(allow_special=True).permits(REMOTE[0], command, Address.of(host, 80))

    @pytest.mark.parametrize("host", ORDINARY)
    @pytest.mark.parametrize("client", [*LOCAL, *REMOTE], ids=ids)
    def test_ordinary(self, command: Command, client: Client, host: str) -> None:
        assert DefaultPolicy(OwnListeners()).permits(client, command, Address.of(host, 80))

    @pytest.mark.parametrize("name", ["example.test", "localhost", "metadata.google.internal"])
    def test_names(self, command: Command, name: str) -> None:
        """A name says nothing: its addresses are asked for, one by one."""
        assert DefaultPolicy().permits(REMOTE[0], command, Address.of(name, 80))


class TestOwnListeners:
    """Nobody sends the proxy to itself, wherever he sits and whatever is allowed."""

    @pytest.mark.parametrize("client", [LOCAL[0], REMOTE[0], Client(None)], ids=ids)
    @pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"])
    @pytest.mark.parametrize("allow_special", [True, False])
    def test_denied(self, client: Client, host: str, allow_special: bool) -> None:
        own = OwnListeners()
        own.add("127.0.0.1", 1080)
        policy = DefaultPolicy(own, allow_special=allow_special)
        assert not policy.permits(client, Command.CONNECT, Address.of(host, 1080))

    def test_another_port(self) -> None:
        own = OwnListeners()
        own.add("127.0.0.1", 1080)
        assert DefaultPolicy(own).permits(LOCAL[0], Command.CONNECT, Address.of("127.0.0.1", 80))

    def test_listeners_that_came_later(self) -> None:
        """The factory sets its own, and ports open and close under it."""
        policy = DefaultPolicy()
        policy.listeners = OwnListeners()
        destination = Address.of("127.0.0.1", 1080)
        assert policy.permits(LOCAL[0], Command.CONNECT, destination)
        policy.listeners.add("127.0.0.1", 1080)
        assert not policy.permits(LOCAL[0], Command.CONNECT, destination)
        policy.listeners.discard("127.0.0.1", 1080)
        assert policy.permits(LOCAL[0], Command.CONNECT, destination)
