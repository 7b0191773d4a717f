"""A configuration at an HTTPS URL."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from socksproxy.sources.found import SourceProblem
from socksproxy.sources.https import HTTPSSource
from tests.support.config_server import ConfigServer, config_server
from tests.support.proxy import closed_port

MOST = 4096


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ConfigServer]:
    with config_server(tmp_path, b"[log]\n") as served:
        yield served


def source(server: ConfigServer, within: float = 5.0, url: str | None = None) -> HTTPSSource:
    return HTTPSSource(url or server.url, MOST, str(server.ca_file), within)


def answering(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer of a server."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_unchanged(server: ConfigServer) -> None:
    """What is the same is sent once, and is the same again."""
    here = source(server)
    first = here.look(None)
    assert first.content == b"[log]\n"
    assert here.look(first) is first
    server.content = b"[udp]\n"
    second = here.look(first)
    assert second.content == b"[udp]\n"
    assert not second.same(first)
    assert server.statuses == [200, 304, 200]


def test_login(server: ConfigServer) -> None:
    """A name and a password in the URL are those of Basic."""
    url = server.url.replace("//", "//node:p%40ss@")
    assert source(server, url=url).look(None).content == b"[log]\n"
    assert b64decode(server.headers["Authorization"].removeprefix("Basic ")) == b"node:p@ss"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(302, Location="https://127.0.0.1/"), "answers 302: the URL must be the final one"),
        (answering(404), "answers 404 instead of 200"),
        (answering(304), "answers 304: the URL must be the final one"),
        (answering(200, b"x" * (MOST + 1), Content_Length=str(MOST + 1)), "is larger than 4096 bytes"),
        (answering(200, b"[log]", Content_Length="600"), "breaks off in its answer"),
        (answering(200, b"[log]"), "does not say how long its answer is"),
        (answering(200, b"", Content_Length="0", Content_Encoding="gzip"), "sends an encoding"),
        (answering(200, b"ff\r\n[log]", Transfer_Encoding="chunked"), "its answer cannot be used"),
        (lambda handler: handler.wfile.write(b"\0\1\2" * 1000), "its answer cannot be used"),
        (lambda handler: None, "its answer cannot be used"),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000),
            "its answer cannot",
        ),
    ],
)
def test_wrong_answers(
    server: ConfigServer, answer: Callable[[BaseHTTPRequestHandler], None], words: str
) -> None:
    server.answer = answer
    with pytest.raises(SourceProblem, match=words):
        source(server).look(None)


def test_drop_by_drop(server: ConfigServer) -> None:
    """A server that sends a byte now and then does not hold the thread."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        answering(200, Content_Length="1000")(handler)
        for _ in range(1000):
            handler.wfile.write(b"#")
            time.sleep(0.02)

    server.answer = answer
    began = time.monotonic()
    with pytest.raises(SourceProblem, match="does not answer in time"):
        source(server, within=0.2).look(None)
    assert time.monotonic() - began < 15  # all of it would take 20


def test_other_certificate(tmp_path: Path) -> None:
    """The certificate is that of the host in the URL, and of an authority that counts."""
    with config_server(tmp_path, host="127.0.0.2") as server:
        with pytest.raises(SourceProblem, match="of the server is wrong: IP address mismatch"):
            source(server).look(None)
        with pytest.raises(SourceProblem, match="the certificate of the server is wrong"):
            HTTPSSource(server.url, MOST).look(None)


def test_no_server(server: ConfigServer) -> None:
    with pytest.raises(SourceProblem, match="connection refused"):
        source(server, url=f"https://127.0.0.1:{closed_port()}/").look(None)
    with pytest.raises(SourceProblem, match=r"name or service not known|temporary failure"):
        source(server, url="https://config.invalid/").look(None)


@pytest.mark.parametrize(
    "url", ["https://", "https:///path", "https://a:b:c/", "https://a/b c", "https://ä/"]
)
def test_no_url(server: ConfigServer, url: str) -> None:
    with pytest.raises(SourceProblem, match="not a URL"):
        source(server, url=url)


def test_no_certificates(server: ConfigServer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificates")
    for file, words in ((wrong, "certificate"), (tmp_path / "none.pem", "no such file")):
        with pytest.raises(SourceProblem, match=words):
            HTTPSSource(server.url, MOST, str(file))
