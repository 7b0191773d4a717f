"""curl, every way that it speaks SOCKS."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from tests.support.origin import HTTPOrigin, blocks, sha256
from tests.support.programs import require, run

from .conftest import Proxy

#: The ways, and the version of the protocol in each.
WAYS = {"--socks4": 4, "--socks4a": 4, "--socks5": 5, "--socks5-hostname": 5}
BY_NAME = ["--socks4a", "--socks5-hostname"]
BIG = 100_000_000


def curl(*arguments: str) -> tuple[int, bytes, str]:
    done = run([require("curl"), "--silent", "--show-error", "--max-time", "50", "--noproxy", "", *arguments])
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_get(proxy: Proxy, web: HTTPOrigin, way: str, host: str) -> None:
    """A page by address and by name, resolved here or there."""
    # -4: where curl itself looks "localhost" up, it takes the address on which the origin is.
    status, body, said = curl("-4", way, f"127.0.0.1:{proxy.port}", f"http://{host}:{web.port}/bytes/70001")
    assert (status, len(body)) == (0, 70_001), said
    assert hashlib.sha256(body).hexdigest() == sha256(70_001)
    proxy.check_record(web, WAYS[way], host if way in BY_NAME else None)


@pytest.mark.parametrize("way", ["--socks5", "--socks5-hostname"])
def test_ipv6(proxy: Proxy, web6: HTTPOrigin, way: str) -> None:
    """An IPv6 literal, which Twisted's own server and microsocks' clients cannot reach."""
    status, body, said = curl(way, f"127.0.0.1:{proxy.port}", f"http://[::1]:{web6.port}/bytes/5000")
    assert (status, len(body)) == (0, 5000), said
    proxy.check_record(web6, 5)


@pytest.mark.parametrize("way", BY_NAME)
@pytest.mark.parametrize("family", [4, 6])
def test_one_family_dead(own_names: Proxy, web: HTTPOrigin, web6: HTTPOrigin, way: str, family: int) -> None:
    """A name with both families of which one alone answers (3proxy and microsocks do not try the other)."""
    origin = web if family == 4 else web6
    status, body, said = curl(
        way, f"127.0.0.1:{own_names.port}", f"http://dual.test:{origin.port}/bytes/5000"
    )
    assert (status, len(body)) == (0, 5000), said
    own_names.check_record(origin, WAYS[way], "dual.test")


@pytest.mark.parametrize("way", WAYS)
def test_100_megabytes_down(proxy: Proxy, web: HTTPOrigin, way: str, tmp_path: Path) -> None:
    target = tmp_path / "down"
    status, _, said = curl(
        way, f"127.0.0.1:{proxy.port}", "-o", str(target), f"http://127.0.0.1:{web.port}/bytes/{BIG}"
    )
    assert status == 0, said
    sha = hashlib.sha256()
    with target.open("rb") as got:
        while piece := got.read(1 << 20):
            sha.update(piece)
    assert sha.hexdigest() == sha256(BIG)
    target.unlink()
    proxy.check_record(web, WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_100_megabytes_up(proxy: Proxy, web: HTTPOrigin, way: str, tmp_path: Path) -> None:
    source = tmp_path / "up"
    with source.open("wb") as sending:
        sending.writelines(blocks(BIG))
    status, body, said = curl(
        way, f"127.0.0.1:{proxy.port}", "-T", str(source), f"http://127.0.0.1:{web.port}/up"
    )
    assert (status, body.decode()) == (0, sha256(BIG)), said
    source.unlink()
    proxy.check_record(web, WAYS[way])


@pytest.mark.parametrize(
    ("way", "code"), [("--socks5", 5), ("--socks5-hostname", 5), ("--socks4", 91), ("--socks4a", 91)]
)
def test_refused(proxy: Proxy, way: str, code: int) -> None:
    """A closed port is told as refused, and curl says so (gost, hev and others say something else)."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        status, _, said = curl(way, f"127.0.0.1:{proxy.port}", f"http://127.0.0.1:{port}/")
    assert status == 97
    assert f"({code})" in said
    proxy.record_of(f"127.0.0.1:{port}", version=WAYS[way], reply=code, ended="refused: connection refused")


def test_unknown_name(proxy: Proxy) -> None:
    """A name that does not exist is told as an unreachable host."""
    status, _, said = curl("--socks5-hostname", f"127.0.0.1:{proxy.port}", "http://does-not-exist.invalid/")
    assert status == 97
    assert "(4)" in said
    proxy.record_of("does-not-exist.invalid:80", reply=4, ended="refused: name not found")


def test_the_proxy_itself(proxy: Proxy) -> None:
    """The proxy's own port through the proxy: a loop that would eat every descriptor."""
    status, _, said = curl("--socks5", f"127.0.0.1:{proxy.port}", f"http://127.0.0.1:{proxy.port}/")
    assert status == 97
    assert "(2)" in said
    proxy.record_of(f"127.0.0.1:{proxy.port}", reply=2, ended="refused: the policy denies it")


def test_as_http_proxy(proxy: Proxy) -> None:
    """Whoever configures it as an HTTP proxy is told what it is."""
    status, body, said = curl("--proxy", f"http://127.0.0.1:{proxy.port}", "http://127.0.0.1:9/")
    assert status == 0, said
    assert b"SOCKS" in body


def test_thirty_at_once(proxy: Proxy, web: HTTPOrigin, tmp_path: Path) -> None:
    """A browser opens many at once."""
    config = tmp_path / "many"
    config.write_text(
        "".join(
            f'url = "http://127.0.0.1:{web.port}/bytes/{1000 + n}"\noutput = "{tmp_path}/{n}"\n'
            for n in range(30)
        )
    )
    status, _, said = curl("--socks5", f"127.0.0.1:{proxy.port}", "--parallel", "--config", str(config))
    assert status == 0, said
    assert [(tmp_path / str(n)).stat().st_size for n in range(30)] == [1000 + n for n in range(30)]
