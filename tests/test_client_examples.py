"""The recipes of the page on the client's side, run as they are, through a real proxy."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.conch.avatar import ConchUser
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import FingerprintFormats, Key
from twisted.conch.ssh.session import SSHSession
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from .support.docs import README, blocks
from .support.origin import HTTPOrigin, Origin
from .support.processes import TWISTD, Program
from .support.programs import missing
from .support.proxy import Playing

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples" / "clients"


@pytest.fixture
def proxied(start: Callable[..., Program]) -> Callable[..., Program]:
    """``proxied(example, ...)``: run it with a proxy in its environment."""
    proxy = start([*TWISTD, "-n", "--pidfile=", "socks", "--port", "0"])
    port = int(proxy.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])

    def run(name: str, *arguments: object, **environment: str) -> Program:
        command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
        if name.endswith(".tac"):
            command = [*TWISTD, "--pidfile=", "-ny", str(EXAMPLES / name)]
        environment = {name: text.replace("PROXY", str(port)) for name, text in environment.items()}
        return start(command, {"ALL_PROXY": f"socks5://127.0.0.1:{port}", "NO_PROXY": "", **environment})

    return run


@pytest.fixture
def web() -> Iterator[HTTPOrigin]:
    with HTTPOrigin() as origin:
        yield origin


@pytest.mark.parametrize("name", ["page.py", "page_treq.py", "page_scrapy.py"])
def test_page(proxied: Callable[..., Program], web: HTTPOrigin, name: str) -> None:
    """Twisted's Agent, treq and Scrapy."""
    library = {"page_treq.py": "treq", "page_scrapy.py": "scrapy"}.get(name)
    if library is not None:
        try:
            __import__(library)
        except ImportError:
            missing(f"the library {library}")
    program = proxied(name, f"http://127.0.0.1:{web.port}/8")
    assert program.wait() == 0, program.output
    assert "Traceback" not in program.output
    assert web.peers


def test_readme(web: HTTPOrigin, start: Callable[..., Program], tmp_path: Path) -> None:
    """The README's client is one."""
    code = blocks(README, ".. code-block:: python")[1]
    proxy = start([*TWISTD, "-n", "--pidfile=", "socks", "--port", "0"])
    port = proxy.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1]
    changed = code.replace("bob:secret@192.0.2.1:1080", f"127.0.0.1:{port}")
    file = tmp_path / "from_the_readme.py"
    file.write_text(changed.replace("https://example.com/", f"http://127.0.0.1:{web.port}/8"))
    program = start([sys.executable, str(file)])
    assert program.wait() == 0, program.output
    assert web.peers


def test_reconnect(proxied: Callable[..., Program]) -> None:
    """A connection that ends is made anew, through the proxy."""
    sessions: list[int] = []

    def one_line(sock: socket.socket) -> None:
        sessions.append(1)
        sock.sendall(b"line %d\n" % len(sessions))

    with Origin(one_line) as origin:
        program = proxied("reconnect.py", "127.0.0.1", origin.port)
        program.wait_for("received line 3")


def test_reconnect_to_nothing(proxied: Callable[..., Program]) -> None:
    """Who has failed is told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    program = proxied("reconnect.py", "127.0.0.1", port)
    program.wait_for("the destination: the destination refuses the connection")


def test_tac(proxied: Callable[..., Program]) -> None:
    """A service of an application, with the proxy in an endpoint's string."""
    with Origin(lambda sock: sock.sendall(b"hello\n")) as origin:
        endpoint = rf"socks5:127.0.0.1:{origin.port}:proxy=tcp\:127.0.0.1\:PROXY"
        proxied("lines.tac", ENDPOINT=endpoint).wait_for("received hello")


def test_irc(proxied: Callable[..., Program]) -> None:
    """A line reaches a channel."""
    said: list[bytes] = []
    done = threading.Event()

    def server(sock: socket.socket) -> None:
        with sock.makefile("rb") as lines:
            for line in lines:
                said.append(line.strip())
                if line.startswith(b"USER"):
                    sock.sendall(b":irc.test 001 ann :Welcome\r\n")
                elif line.startswith(b"JOIN"):
                    sock.sendall(b":ann!a@b JOIN #test\r\n")
                elif line.startswith(b"QUIT"):
                    break
        done.set()

    with Origin(server) as origin:
        program = proxied("irc.py", "127.0.0.1", origin.port, "ann", "#test", "good evening")
        assert program.wait() == 0, program.output
        assert done.wait(10)
    assert b"PRIVMSG #test :good evening" in said


class _Avatar(ConchUser):
    def __init__(self) -> None:
        super().__init__()
        self.channelLookup[b"session"] = SSHSession

    def execCommand(self, process: Any, command: bytes) -> None:
        process.write(b"you said " + command)
        process.loseConnection()

    def closed(self) -> None:
        """Nothing is left to do."""

    def eofReceived(self) -> None:
        """The same."""


@implementer(IRealm)
class _Realm:
    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return interfaces[0], _Avatar(), lambda: None


@pytest_twisted.inlineCallbacks
def test_ssh(proxied: Callable[..., Program]) -> Playing:
    """A command over conch's SSH; another key of the server is refused."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.conch.interfaces import ISession
    from twisted.python.components import registerAdapter

    registerAdapter(lambda avatar: avatar, _Avatar, ISession)
    key = Key(Ed25519PrivateKey.generate())
    factory: Any = SSHFactory()
    factory.noisy = False
    factory.publicKeys = {b"ssh-ed25519": key.public()}
    factory.privateKeys = {b"ssh-ed25519": key}
    checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
    factory.portal = Portal(_Realm(), [checker])
    listening: Any = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    port = listening.getHost().port
    fingerprint = key.public().fingerprint(FingerprintFormats.SHA256_BASE64)
    right = yield deferToThread(
        proxied, "ssh.py", "127.0.0.1", port, "ann", fingerprint, "hello", SSH_PASSWORD="secret"
    )
    status = yield deferToThread(right.wait)
    assert (status, right.output.strip()) == (0, "you said hello")
    wrong = yield deferToThread(proxied, "ssh.py", "127.0.0.1", port, "ann", "x", "hello", SSH_PASSWORD="x")
    yield deferToThread(wrong.wait)
    assert "you said" not in wrong.output
    yield listening.stopListening()


def test_datagram(proxied: Callable[..., Program]) -> None:
    """UDP: a question and its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        program = proxied("datagram.py", "127.0.0.1", server.getsockname()[1])
        data, peer = server.recvfrom(100)
        assert data[:1] == b"\x1b"
        server.sendto(bytes(40) + (2208988800 + 17).to_bytes(4, "big") + bytes(4), peer)
        assert program.wait() == 0, program.output
    assert program.output.strip().endswith("seconds since 1970: 17")


def test_active_ftp(proxied: Callable[..., Program]) -> None:
    """BIND: the peer connects to the port that the proxy tells."""
    program = proxied("active_ftp.py", "127.0.0.1")
    host, port = program.wait_for(r"PORT (\S+) (\d+)").groups()
    with socket.create_connection((host, int(port)), 30) as peer:
        peer.sendall(b"the file")
    assert program.wait() == 0, program.output
    assert re.search("^the file$", program.output, re.MULTILINE)
