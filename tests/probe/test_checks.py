"""Every check finds the fault of its name, and no fault in a server without one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from socksproxy.probe.check import Check
from socksproxy.probe.checks import ALL
from socksproxy.probe.checks.udp import ProbeAssociation, stranger_to
from socksproxy.probe.outcome import CheckOutcome, Failed, NotPossible, NotServed
from socksproxy.probe.running import run
from socksproxy.probe.subject import ProbedServer, Where
from socksproxy.wire.password import Credentials

from ..support.faulty_server import PASSWORD, PATIENCE, USER, FaultyServer

_LOGIN = Credentials(USER, PASSWORD)
#: What a server that does not know SOCKS4 at all does is no fault: the check says that it is not served.
_NOT_SERVED = {"socks4.connect", "socks4a.connect", "socks4a.bind", "socks4.bind"}


def _subject(server: FaultyServer, login: Credentials | None, **more: Any) -> ProbedServer:
    where = Where("127.0.0.1", server.port, login, timeout=1.0, patience=4 * PATIENCE)
    return ProbedServer(where._replace(**more))


@pytest.fixture
def both_families(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name with an IPv6 address and then an IPv4 address."""
    original: Callable[..., Any] = socket.getaddrinfo

    def found(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        if host != "both.test":
            return original(host, port, *arguments, **more)
        return [
            row for address in ("::1", "127.0.0.1") for row in original(address, port, *arguments, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return "both.test"


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socksproxy.probe.checks.relaying._LONG_ANSWER", 2 * PATIENCE)
    monkeypatch.setattr("socksproxy.probe.checks.connect._SHORTLY", 2 * PATIENCE)


def _named(check: Check, name: str) -> dict[str, str]:
    return {"name": name} if check.id == "socks5.connect-next-address" else {}


@pytest.mark.slow  # most of them wait for what a server without the fault would send
@pytest.mark.parametrize("check", ALL, ids=lambda check: check.id)
def test_fault(check: Check, both_families: str) -> None:
    login = _LOGIN if check.id.startswith("login.") else None
    with FaultyServer(check.id, login is not None) as server:
        subject = _subject(server, login, **_named(check, both_families))
        with pytest.raises((Failed, NotServed)) as caught:
            check.run(subject)
    assert str(caught.value)
    if check.id not in _NOT_SERVED:
        assert isinstance(caught.value, Failed)


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.id)
def test_no_fault(check: Check, both_families: str) -> None:
    login = _LOGIN if check.id.startswith("login.") else None
    with FaultyServer("", login is not None) as server:
        check.run(_subject(server, login, **_named(check, both_families)))


@pytest.mark.slow
def test_with_a_login() -> None:
    with FaultyServer("", login=True) as server:
        results = run(ALL, _subject(server, _LOGIN))
    assert [
        result for result in results if result.verdict not in (CheckOutcome.PASS, CheckOutcome.NOT_RUN)
    ] == []
    assert [result.check for result in results] == ALL


def test_without_the_login_that_is_due() -> None:
    with FaultyServer("", login=True) as server:
        results = {result.check.id: result for result in run(ALL, _subject(server, None))}
    assert results["socks5.greeting"].verdict is CheckOutcome.FAIL
    assert results["socks5.connect"].verdict is CheckOutcome.NOT_RUN


def test_no_second_address_and_no_name() -> None:
    ids = {"socks5.connect-name", "socks5.connect-ipv6", "socks5.bind-wrong-peer", "udp.other-source"}
    with FaultyServer() as server:
        where = Where("127.0.0.1", server.port, target="127.0.0.3", name="", timeout=1.0)
        subject = ProbedServer(where)
        assert subject.at(1).host == "127.0.0.3"
        with pytest.raises(NotPossible, match="--target-name"):
            subject.name()
    assert ids <= {check.id for check in ALL}


def test_every_check_names_its_source_and_stands_after_what_it_needs() -> None:
    seen: set[str] = set()
    for check in ALL:
        assert check.source
        assert check.expected
        assert check.id not in seen
        assert not check.needs or check.needs in seen
        seen.add(check.id)


def test_wrong_password_where_the_right_one_is_empty() -> None:
    with FaultyServer(login=True) as server:
        subject = _subject(server, Credentials(USER, b""))
        [result] = run([check for check in ALL if check.id == "login.wrong"], subject)
    assert result.verdict is CheckOutcome.PASS


@pytest.mark.parametrize("relay", ["::1", "192.0.2.1"])
def test_no_stranger(relay: str) -> None:
    """Only the loopback network of IPv4 has a second address; elsewhere the check is not run, in words."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        control: Any = None
        association = ProbeAssociation(control, (relay, 1), sock, sock)
        with pytest.raises(NotPossible, match="no second address of this machine"):
            stranger_to(association, ProbedServer(Where("::1", 1)))
