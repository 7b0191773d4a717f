"""Endpoints from strings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from twisted.internet import reactor, ssl
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.plugin import getPlugins

from socksproxy.client import HTTPConnectClientEndpoint, SOCKS4ClientEndpoint, SOCKS5ClientEndpoint

from ..support.authority import SERVER, Authority
from ..support.proxy import Playing, until
from ..support.scripted_proxy import SUCCESS4, SUCCESS5, SUCCESS_HTTP, Recorders, Step, forward_to, open5

PROXY = r"proxy=tcp\:127.0.0.1\:1080"


def quoted(text: str) -> str:
    """A string inside another one."""
    return text.replace("\\", "\\\\").replace(":", r"\:")


def test_prefixes() -> None:
    """No other plugin has these prefixes, and ours are found."""
    prefixes = [plugin.prefix for plugin in getPlugins(IStreamClientEndpointStringParserWithReactor)]
    for prefix in ("socks", "socks4", "socks4a", "socks5", "http-connect"):
        assert prefixes.count(prefix) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"socks5:example.org:80:{PROXY}", SOCKS5ClientEndpoint),
        (f"socks:example.org:80:{PROXY}:user=me:password=x\\:y:timeout=5:resolve=here", SOCKS5ClientEndpoint),
        (f"socks4:example.org:80:{PROXY}:user=me", SOCKS4ClientEndpoint),
        (f"socks4a:example.org:80:{PROXY}:resolve=proxy", SOCKS4ClientEndpoint),
        (f"http-connect:example.org:443:{PROXY}", HTTPConnectClientEndpoint),
        (rf"socks5:2001\:db8\:\:1:80:{PROXY}", SOCKS5ClientEndpoint),
    ],
)
def test_strings(text: str, kind: type[object]) -> None:
    """Each prefix and option."""
    assert type(clientFromString(reactor, text)) is kind


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("socks5:example.org:80", "socks5: proxy= is due"),
        (f"socks5:example.org:{PROXY}", "HOST:PORT is due"),
        (f"socks5:2001:db8::1:80:{PROXY}", "HOST:PORT is due"),
        (f"socks5:example.org:http:{PROXY}", "the port 'http'"),
        (f"socks5:example.org:0:{PROXY}", "the port '0'"),
        (f"socks5:example.org:80:{PROXY}:timeout=never", "timeout= 'never'"),
        (f"socks5:example.org:80:{PROXY}:resolve=there", "resolve='there'"),
        (f"socks5:example.org:80:{PROXY}:login=me", "login=: one of proxy, user"),
        (f"socks4:example.org:80:{PROXY}:password=x", "password=: one of proxy, user"),
        (f"socks5:example.org:80:{PROXY}:password=x", "password= is due with user="),
        (f"socks5:example.org:80:{PROXY}:user=a:password=x:password-file=y", "exclude each other"),
        (f"socks5:example.org:80:{PROXY}:user=a:password-file=/nowhere/at/all", "/nowhere/at/all"),
        ("socks5:example.org:80:proxy=nothing", "socks5: proxy=: Unknown endpoint type"),
        (r"socks5:example.org:80:proxy=tcp\:127.0.0.1", "socks5: proxy=: "),
        (r"socks5:example.org:80:proxy=tcp\:127.0.0.1\:x", "socks5: proxy=: "),
        ("socks5:example.org:80:proxy=tcp:127.0.0.1:1080", "and in proxy= written as"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    """The option is named, and what would be right."""
    with pytest.raises(ValueError, match=r"^socks") as caught:
        clientFromString(reactor, text)
    assert problem in str(caught.value)


@pytest_twisted.inlineCallbacks
def test_password_file(scripted: Callable[..., Any], tmp_path: Path) -> Playing:
    """The file's last line end is not part of the password."""
    file = tmp_path / "secret"
    file.write_bytes(b"p\xff:\n")
    steps: list[Step] = [4, b"\x05\x02", 8, b"\x01\x00", 10, SUCCESS5]
    server: Any = yield scripted(*steps)
    text = rf"socks5:192.0.2.1:80:proxy=tcp\:127.0.0.1\:{server.port}:user=me:password-file={file}"
    protocol: Any = yield clientFromString(reactor, text).connect(Recorders())
    assert server.ends[0].received[4:12] == b"\x01\x02me\x03p\xff:"
    protocol.transport.loseConnection()


@pytest_twisted.inlineCallbacks
def test_nested_strings(scripted: Callable[..., Any]) -> Playing:
    """e 17: three proxies, one string inside the other."""
    http = b"CONNECT 192.0.2.2:1080 HTTP/1.1\r\nHost: 192.0.2.2:1080\r\n\r\n"
    server: Any = yield scripted(len(http), SUCCESS_HTTP, *open5(SUCCESS5), 9, SUCCESS4 + b"hello")
    first = rf"http-connect:192.0.2.2:1080:proxy=tcp\:127.0.0.1\:{server.port}"
    second = f"socks5:192.0.2.3:1080:proxy={quoted(first)}"
    third = f"socks4a:192.0.2.4:80:proxy={quoted(second)}"
    protocol: Any = yield clientFromString(reactor, third).connect(Recorders())
    yield until(lambda: protocol.heard == ["made", b"hello"])
    asked = b"\x05\x01\x00" + b"\x05\x01\x00\x01\xc0\x00\x02\x03\x04\x38"
    assert server.ends[0].received == http + asked + b"\x04\x01\x00\x50\xc0\x00\x02\x04\x00"
    protocol.transport.loseConnection()


@pytest_twisted.inlineCallbacks
def test_inside_tls(scripted: Callable[..., Any], tmp_path: Path) -> Playing:
    """e 15: ``tls:`` with one of these as its endpoint, and TLS to the proxy inside that."""
    authority = Authority(tmp_path)

    def context(name: str) -> Any:
        file = authority.issue(name, alternatives=[x509.DNSName(name)], usage=SERVER)
        data = file.read_bytes()
        file.unlink()
        return ssl.PrivateCertificate.loadPEM(data).options()

    destination: Any = yield scripted(context=context("dest.test"))
    steps = [19, SUCCESS4, forward_to(destination.port)]
    server: Any = yield scripted(*steps, context=context("proxy.test"))
    trust = f"trustRoots={tmp_path}"
    proxy = rf"tls:proxy.test:443:{trust}:endpoint=tcp\:127.0.0.1\:{server.port}"
    through = f"socks4a:dest.test:443:proxy={quoted(proxy)}"
    text = f"tls:dest.test:443:{trust}:endpoint={quoted(through)}"
    protocol: Any = yield clientFromString(reactor, text).connect(Recorders())
    protocol.transport.write(b"ping")
    yield until(lambda: protocol.heard[1:] == [b"ping"])
    protocol.transport.loseConnection()
