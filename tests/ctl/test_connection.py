"""Where a server is, and the way to it: see :mod:`socksproxy.ctl.connection`."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from socksproxy.admin.ports import AdminPorts
from socksproxy.admin.routes import ApiRoute, Routes
from socksproxy.admin.settings import AdminLevel, AdminListener, AdminSettings
from socksproxy.ctl.command import main
from socksproxy.ctl.connection import parse_place, places, query_of, quoted, token_in
from socksproxy.ctl.outcome import CtlFailed

from ..support.certificates import self_signed
from ..support.proxy import Playing

_TABLE = Routes([ApiRoute("GET", "/readyz", AdminLevel.MONITOR, lambda asked: {"ready": True})])


def opened(**more: str) -> tuple[AdminPorts, int]:
    """A listener, and its port."""
    settings = AdminSettings(listeners=[AdminListener(**more)])  # type: ignore[arg-type]
    ports = AdminPorts(reactor, settings, lambda: _TABLE, lambda: None)
    ports.enter()
    ((_, port),) = ports.places
    return ports, port


def health(*arguments: str) -> int:
    return main(["health", *arguments])


@pytest_twisted.inlineCallbacks
def test_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Playing:
    """A listener at an address gets the token of the file."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    (tmp_path / "other").write_text("another-token-of-16")
    ports, port = opened(endpoint="tcp:0:interface=127.0.0.1", token_file=str(token))
    where = f"http://localhost:{port}"
    assert (yield deferToThread(health, "-s", where, "--token-file", str(token))) == 0
    assert (yield deferToThread(health, "-s", where, "--token-file", str(tmp_path / "other"))) == 1
    assert (yield deferToThread(health, "-s", where)) == 1
    wrong, missing = capsys.readouterr().err.splitlines()
    assert wrong == "socksproxy ctl: the token is not that of this server's token-file"
    assert missing.endswith("the header Authorization: Bearer TOKEN (socksproxy ctl --token-file FILE)")
    ports.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" \n", "there is no token in it"),
        (b"0123456789", "what it has is no token"),
        (b"0123456789 abcdef0", "what it has is no token"),
        (b"0123456789\xffabcdef0", "what it has is no token"),
        (b"0123456789abcdef\n0123456789abcdef\n", "what it has is no token"),
    ],
)
def test_token_file(data: bytes, words: str, tmp_path: Path) -> None:
    """What a server would not take is not sent; an empty file and a wrong one have words of their own."""
    path = tmp_path / "token"
    path.write_bytes(data)
    with pytest.raises(CtlFailed, match=words) as caught:
        token_in(str(path))
    assert caught.value.status == 2


@pytest_twisted.inlineCallbacks
def test_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Playing:
    """A listener with TLS is asked only if its certificate is right, and gets ours."""
    pem = tmp_path / "own.pem"
    pem.write_bytes(self_signed())
    ports, port = opened(endpoint=f"ssl:0:privateKey={pem}:interface=127.0.0.1", client_ca=str(pem))
    where = f"https://localhost:{port}"
    assert (yield deferToThread(health, "-s", where, "--ca", str(pem), "--certificate", str(pem))) == 0
    assert (yield deferToThread(health, "-s", where, "--ca", str(pem))) == 1
    assert "a certificate is needed" in capsys.readouterr().err
    assert (yield deferToThread(health, "-s", where)) == 3
    assert "certificate verify failed" in capsys.readouterr().err
    assert (yield deferToThread(health, "-s", where, "--ca", "/nowhere")) == 2
    assert (
        capsys.readouterr().err == "socksproxy ctl: --ca, --certificate or --key: No such file or directory\n"
    )
    ports.close()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/run/a", ("/run/a", "localhost", 0, False)),
        ("unix:/run/a:b", ("/run/a:b", "localhost", 0, False)),
        ("http://localhost:9090", (None, "localhost", 9090, False)),
        ("https://proxy1.example.org:9090/", (None, "proxy1.example.org", 9090, True)),
        ("http://[::1]:9090", (None, "::1", 9090, False)),
    ],
)
def test_place(text: str, place: tuple[str | None, str, int, bool]) -> None:
    found = parse_place(text)
    assert (found.path, found.host, found.port, found.tls) == place


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost",
        "http://:1",
        "http://x:0",
        "http://x:65536",
        "http://x:1/v1",
        "tcp://x:1",
        "http://ü:1",
        "http://a..b:1",
        "http://.:1",
        "http://a b:1",
        "http://a\r\nb:1",
        f"http://{'a' * 64}:1",
    ],
)
def test_no_place(text: str) -> None:
    with pytest.raises(CtlFailed) as caught:
        parse_place(text)
    assert caught.value.status == 2


def test_usual_places() -> None:
    assert places({}) == ["/run/socksproxy/admin.sock"]
    assert places({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/1"}) == [
        "/run/a/admin.sock",
        "/run/socksproxy/admin.sock",
        "/run/user/1/socksproxy/admin.sock",
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("bob@x/..", "bob%40x%2F.."),
        ("a b&c=d?#", "a%20b%26c%3Dd%3F%23"),
        ("ü\r\n", "%C3%BC%0D%0A"),
        ("\udcff", "%FF"),
    ],
)
def test_quoted(text: str, written: str) -> None:
    """No name can become another path, another parameter or another header."""
    assert quoted(text) == written
    assert query_of({"a": text, "b": None}) == f"?a={written}"
