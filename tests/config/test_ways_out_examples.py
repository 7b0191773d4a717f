"""The five complete files of docs/ways-out.rst: right, and as the page says when they are started."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from socksproxy.cli import main

from ..support.origin import Origin
from ..support.processes import PATIENCE, Program
from ..support.workers import received, until

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SINGLE, OFFICE, EXITS, ADDRESSES, TOR = FILES = (
    "ways-out/single.toml",
    "ways-out/office.toml",
    "ways-out/exits.toml",
    "config/addresses.toml",
    "ways-out/tor.toml",
)
LISTENING = r"listening on tcp:127.0.0.1:(\d+)"


class Upstream:
    """
    A proxy that lets all through, and says its number in place of a destination.

    :ivar logins: the user and the password of each connection; None: it has shown none.
    :ivar asked: the host of each request.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.logins: list[tuple[bytes, bytes] | None] = []
        self.asked: list[bytes] = []
        self.origin = Origin(self.serve)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.origin.port}"

    def serve(self, link: socket.socket) -> None:
        """SOCKS5; HTTP first, where the client begins so."""
        first = received(link, 2)
        if first == b"CO":
            head = b"CO"
            while not head.endswith(b"\r\n\r\n"):
                head += received(link, 1)
            host = head.split()[1]
            self.asked.append(host)
            link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            if host != b"10.20.0.1:1080":
                link.sendall(bytes([self.number]))
                link.recv(1)
                return
            first = received(link, 2)
        login = None
        methods = received(link, first[1])
        if 2 in methods:
            link.sendall(b"\x05\x02")
            user = received(link, received(link, 2)[1])
            login = user, received(link, received(link, 1)[0])
            link.sendall(b"\x01\x00")
        else:
            link.sendall(b"\x05\x00")
        self.logins.append(login)
        *_, kind = received(link, 4)
        self.asked.append(received(link, {1: 4, 3: 0, 4: 16}[kind] or received(link, 1)[0]))
        received(link, 2)
        link.sendall(b"\x05\x00\x00\x01" + bytes(6) + bytes([self.number]))
        link.recv(1)


@contextmanager
def upstreams(count: int) -> Iterator[list[Upstream]]:
    with ExitStack() as stack:
        all_of_them = [Upstream(number) for number in range(count)]
        for each in all_of_them:
            stack.enter_context(each.origin)
        yield all_of_them


def here(name: str, directory: Path, *changes: tuple[str, str]) -> str:
    """The path of the example *name*, with the files of this machine."""
    bcrypt = pytest.importorskip("bcrypt")
    (directory / "users").write_bytes(b"bob:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    (directory / "exits").write_text("socks5://alice:hunter2@exit.example:1080\n")
    for file in ("provider.password", "branch.password"):
        (directory / file).write_text("hunter2\n")
    text = (EXAMPLES / name).read_text("utf-8")
    always = [(f"/{place}/socks/", f"{directory}/") for place in ("etc", "var/lib", "var/log")]
    for there, local in (*always, *changes):
        assert there in text or (there, local) in always, there
        text = text.replace(there, local)
    path = directory / Path(name).name
    path.write_text(text, "utf-8")
    return str(path)


def asked(port: int, host: bytes, user: bytes = b"", address: str = "127.0.0.1") -> tuple[int, int]:
    """The reply to a CONNECT to *host*, and the number of the upstream that served it, or -1."""
    with socket.create_connection((address, port), PATIENCE) as client:
        client.sendall(b"\x05\x01\x02" if user else b"\x05\x01\x00")
        assert received(client, 2)[1] == (2 if user else 0)
        if user:
            client.sendall(bytes([1, len(user)]) + user + b"\x06secret")
            assert received(client, 2) == b"\x01\x00"
        kind = (
            b"\x01" + socket.inet_aton(host.decode()) if host[:1].isdigit() else bytes([3, len(host)]) + host
        )
        client.sendall(b"\x05\x01\x00" + kind + b"\x01\xbb")
        reply = received(client, 10)[1]
        return reply, received(client, 1)[0] if reply == 0 else -1


def started(twistd: Callable[..., Program], path: str, *more: str) -> tuple[Program, int]:
    program = twistd("socks", "--config", path, "--listen", "tcp:0:interface=127.0.0.1", *more)
    return program, int(program.wait_for(LISTENING)[1])


def test_the_page_has_them() -> None:
    """And no other file is in the directory, but for the one about pools."""
    page = (EXAMPLES.parent / "ways-out.rst").read_text("utf-8")
    for name in FILES:
        assert f"literalinclude:: examples/{name}" in page
    files = {f"ways-out/{path.name}" for path in (EXAMPLES / "ways-out").iterdir()}
    assert files - set(FILES) == {"ways-out/pool.toml"}


@pytest.mark.parametrize("name", FILES)
def test_no_mistakes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``socksproxy check`` finds no mistake, and nothing to warn of."""
    monkeypatch.chdir(tmp_path)
    changes = [("192.0.2.10", "127.0.0.1")] if name == EXITS else []
    assert main(["check", here(name, tmp_path, *changes)]) == 0
    assert "warning" not in "".join(capsys.readouterr())


def test_single(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Names go to the upstream, and so does the login."""
    with upstreams(1) as (provider,):
        path = here(SINGLE, tmp_path, ("proxy.provider.example:1080", provider.address))
        _, port = started(twistd, path)
        assert asked(port, b"www.example.org") == (0, 0)
        assert provider.asked == [b"www.example.org"]
        assert provider.logins == [(b"alice", b"hunter2")]


def test_office(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Three ways, of which one is a chain and one leads out directly."""
    with upstreams(1) as (office,):
        changes = (("proxy.office.example:3128", office.address), ("*.office.example", "localhost"))
        _, port = started(twistd, here(OFFICE, tmp_path, *changes))
        assert asked(port, b"www.example.org") == (0, 0)
        assert asked(port, b"shop.example.com") == (0, 0)
        assert asked(port, b"localhost")[0] == 5  # this machine has no server at port 443
        assert office.asked == [b"www.example.org:443", b"10.20.0.1:1080", b"shop.example.com"]
        assert office.logins == [(b"alice", b"hunter2")]


def test_exits(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """A word keeps its exit: in all workers, after the file of members has changed, and after a restart."""
    with upstreams(4) as exits:

        def write(some: list[Upstream]) -> None:
            (tmp_path / "exits").write_text("".join(f"socks5://{each.address}\n" for each in some))

        def exits_of(port: int, word: bytes) -> set[int]:
            found = {asked(port, b"192.0.2.1", b"bob-session-" + word) for _ in range(4)}
            assert all(reply == 0 for reply, _ in found)
            return {number for _, number in found}

        path = here(EXITS, tmp_path, ('workers = "auto"', "workers = 2"), ("192.0.2.10", "127.0.0.1"))
        write(exits)
        program, port = started(twistd, path)
        program.wait_for(r"worker 2 \(process \d+\) accepts")
        words = [b"a", b"b", b"c-for-30", b"d"]
        before = [exits_of(port, word) for word in words]
        assert all(len(each) == 1 for each in before)
        gone = before[0].copy().pop()
        write([each for each in exits if each.number != gone])
        # Each worker looks at the file for itself.
        until(lambda: gone not in exits_of(port, b"a") | exits_of(port, b"a") | exits_of(port, b"a"))
        after = [exits_of(port, word) for word in words]
        for then, now in zip(before, after, strict=True):
            assert now == then or then == {gone}
        assert len({asked(port, b"192.0.2.1", b"bob")[1] for _ in range(20)}) > 1
        program.stop()
        one = Path(path).read_text("utf-8").replace("workers = 2", "workers = 1")  # which starts sooner
        Path(path).write_text(one, "utf-8")
        program, port = started(twistd, path)
        assert [exits_of(port, word) for word in words] == after
        program.stop()
    records = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    first = next(record for record in records if record["sticky"] == "c")
    assert (first["user"], first["tries"], first["upstream_reply"]) == ("bob", 1, 0)
    assert first["via"] in {each.address for each in exits}


def test_addresses(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """A client that reaches one of 200 addresses leaves from that one."""
    path = here(ADDRESSES, tmp_path, ("192.0.2.0/24", "127.0.0.0/8"))
    program = twistd("socks", "--config", path, "--port", "0")
    port = int(program.wait_for(r"listening on tcp:\S*:(\d+)")[1])
    hosts = [f"127.0.1.{number}" for number in range(1, 201)]
    with Origin(lambda link: link.close()) as origin:
        for host in hosts:
            with socket.create_connection((host, port), PATIENCE) as client:
                client.sendall(
                    b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.port.to_bytes(2, "big")
                )
                assert received(client, 12)[2:4] == b"\x05\x00"
        until(lambda: len(origin.peers) == 200)
        assert [host for host, _ in origin.peers] == hosts


def test_tor(tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Each session shows another name and password; names and onions go to Tor as they are."""
    with upstreams(1) as (tor,):
        _, port = started(twistd, here(TOR, tmp_path, ("127.0.0.1:9050", tor.address)))
        onion = b"a" * 56 + b".onion"
        for host in (onion, b"www.example.org"):
            assert asked(port, host) == (0, 0)
        assert tor.asked == [onion, b"www.example.org"]
        assert None not in tor.logins
        assert len(set(tor.logins)) == 2
