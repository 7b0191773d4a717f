"""The connection to the store: versions, TLS, Sentinels, and errors that only some servers have."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from socksproxy.shared.asking import StoreProblem
from socksproxy.shared.link import ScriptCall, StoreLink
from socksproxy.shared.scripts import ADMIT, LEASE, script
from tests.support.origin import Origin
from tests.support.stores import settings_of
from tests.support.valkey import Valkey

PAGE = Path(__file__).parents[2] / "docs" / "fleet.rst"
#: The rights in the documentation.
ACL = re.search(r"ACL SETUSER (.*?)\n\n", PAGE.read_text(), re.DOTALL)
ONE = ScriptCall(script("return 1"), [], [])


def says(*answers: bytes) -> Callable[[socket.socket], None]:
    """A server that gives one answer after the other."""

    def serve(sock: socket.socket) -> None:
        with suppress(OSError):
            for answer in answers:
                sock.recv(65536)
                sock.sendall(answer)
            sock.recv(1)

    return serve


def info(version: str) -> bytes:
    text = f"# Server\r\nredis_version:{version}\r\n".encode()
    return b"$%d\r\n%s\r\n" % (len(text), text)


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "2.8", "", "x"])
def test_old(version: str) -> None:
    with Origin(says(info(version))) as server, pytest.raises(StoreProblem, match="Redis 6\\.2 or later"):
        StoreLink(settings_of(f"redis://127.0.0.1:{server.port}"))


@pytest.mark.parametrize("version", ["6.2.0", "7.2.4", "10.0.1"])
def test_new(version: str) -> None:
    with Origin(says(info(version), b":1\r\n")) as server:
        link = StoreLink(settings_of(f"redis://127.0.0.1:{server.port}"))
        assert link.run([ONE], 1.0) == [1]
        link.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"LOADING Redis is loading the dataset in memory",
        b"READONLY You can't write against a read only replica.",
        b"CLUSTERDOWN The cluster is down",
        b"MASTERDOWN StoreLink with MASTER is down and replica-serve-stale-data is set to 'no'.",
        b"NOPERM this user has no permissions to run the 'evalsha' command",
        b"MISCONF Redis is configured to save RDB snapshots",
        b"BUSY Redis is busy running a script.",
        b"ERR max number of clients reached",
    ],
)
def test_errors(answer: bytes) -> None:
    """Whatever error the server gives is a problem of the store, in the server's words."""
    with Origin(says(info("7.0.0"), b"-" + answer + b"\r\n")) as server:
        link = StoreLink(settings_of(f"redis://127.0.0.1:{server.port}"))
        with pytest.raises(StoreProblem) as caught:
            link.run([ONE], 1.0)
        assert str(caught.value).split()[-1] == answer.decode().split()[-1]
        link.close()
    with Origin(says(b"-" + answer + b"\r\n")) as server, pytest.raises(StoreProblem):
        StoreLink(settings_of(f"redis://127.0.0.1:{server.port}"))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n$-5\r\n", b"\x16\x03"])
def test_no_store(answer: bytes) -> None:
    """A server of another kind, or one that hangs up."""

    def serve(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.recv(65536)
            sock.sendall(answer)

    with Origin(serve) as server, pytest.raises(StoreProblem):
        StoreLink(settings_of(f"redis://127.0.0.1:{server.port}"))


def test_pipeline(common: Valkey) -> None:
    """Answers are those of their commands, also where the server knows only some of the scripts."""
    link = StoreLink(settings_of(common.url))
    known = script("return 'known'")
    link.run([ScriptCall(known, [], [])], 1.0)
    new = script("return KEYS[1] .. ARGV[1]")
    old, one, other = ScriptCall(known, [], []), ScriptCall(new, ["k"], ["a"]), ScriptCall(new, ["k"], ["b"])
    for _ in range(2):
        assert link.run([old, one, old, other], 1.0) == [b"known", b"ka", b"known", b"kb"]
    with pytest.raises(StoreProblem, match="does not answer in time"):
        link.run([ScriptCall(script("for number = 1, 1e7 do end"), [], [])], 0.001)
    link.close()


def test_words(common: Valkey) -> None:
    """Whatever a script is given arrives as it is: names of all kinds, bytes, numbers, nothing."""
    link = StoreLink(settings_of(common.url))
    echo = ScriptCall(
        script("return {KEYS[1], unpack(ARGV)}"), ["n:ü\r\n$3"], ["\udcff", b"\xff\0", 7, 0.25, ""]
    )
    expected = ["n:ü\r\n$3".encode(), b"\xff", b"\xff\0", b"7", b"0.25", b""]
    for _ in range(2):
        assert link.run([echo, ONE], 1.0) == [expected, 1]
    link.close()


def test_order(common: Valkey) -> None:
    """A script that is new to the server runs in its turn: counts are written before sessions are judged."""
    link = StoreLink(settings_of(common.url))
    push = "redis.call('RPUSH', KEYS[1], ARGV[1])"
    known, new = script(push + " -- known"), script(push + " -- new")
    calls = (
        [ScriptCall(known, ["order"], [1])],
        [ScriptCall(each, ["order"], [number]) for number, each in enumerate((new, known, new), 2)],
    )
    for some in calls:
        link.run(some, 1.0)
    assert common.client().lrange("order", 0, -1) == ["1", "2", "3", "4"]
    link.close()


def test_rights(valkey: Callable[..., Valkey]) -> None:
    """A user with the rights of the documentation's ACL may do all that is needed, and nothing else."""
    server = valkey()
    assert ACL is not None
    server.client().execute_command("ACL", "SETUSER", *ACL[1].replace("\\", "").split())
    link = StoreLink(settings_of(f"unix://socks:secret@{server.path}"))
    link.run([ScriptCall(LEASE, ["sp:{berlin}:1:nodes"], ["a/1", 1000, "", 1])], 1.0)
    needs = "[[[2, 5], [3, 1000, 5]]]"
    keys = ["sp:{berlin}:1:nodes", "sp:{berlin}:1:n:bob", "sp:{berlin}:1:r:bob"]
    assert link.run([ScriptCall(ADMIT, keys, ["a/1", 1000, needs])], 1.0) == [b"0"]
    with pytest.raises(StoreProblem, match="permission"):
        link.run([ScriptCall(LEASE, ["sp:{paris}:1:nodes"], ["a/1", 1000, "", 1])], 1.0)
    link.close()
