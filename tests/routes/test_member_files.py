"""Files of members."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import pytest_twisted

from socksproxy.policy.sets import SetFileError, SetFiles
from socksproxy.routes.member_files import MembersFile
from socksproxy.values.upstreams import Upstream, UpstreamType
from socksproxy.wire.password import Credentials
from socksproxy.wire.words import Address

from ..policy.sets.test_watch import Clocked
from ..support.logs import heard


def read(path: Path, text: str) -> MembersFile:
    path.write_text(text)
    file = MembersFile(str(path))
    file.load()
    return file


def test_lines(tmp_path: Path) -> None:
    """URLs of all kinds, HOST:PORT, comments."""
    file = read(
        tmp_path / "members",
        "# exits\n192.0.2.1:1080\n"
        "socks5://alice:hunter2%40@Exit.example:1081  # the second one\n"
        "socks4a://bob@192.0.2.2\n\nhttp://[2001:db8::1]:3128\nsocks5h://192.0.2.3:1\n",
    )
    assert dict(file.table) == {
        "192.0.2.1:1080": Upstream(type="socks5", address=Address.of("192.0.2.1", 1080)),
        "alice@exit.example:1081": Upstream(
            type="socks5",
            address=Address.of("exit.example", 1081),
            login=Credentials(b"alice", b"hunter2@"),
        ),
        "bob@192.0.2.2:1080": Upstream(
            type="socks4a", address=Address.of("192.0.2.2", 1080), login=Credentials(b"bob", b"")
        ),
        "[2001:db8::1]:3128": Upstream(type=UpstreamType.HTTP, address=Address.of("2001:db8::1", 3128)),
        "192.0.2.3:1": Upstream(type="socks5", address=Address.of("192.0.2.3", 1)),
    }
    assert file.ignored == ()


def test_settings(tmp_path: Path) -> None:
    """What stands behind a member counts for it alone."""
    file = read(
        tmp_path / "members",
        "192.0.2.1:1080?bind=true&udp=false&weight=3\nsocks5://a:b@192.0.2.2?resolve-commands=true\n"
        "http://192.0.2.3?max-sessions=9\n192.0.2.4:1080?\n",
    )
    one, two, three, four = file.table.values()
    assert (one.bind, one.udp, one.weight, one.max_sessions) == (True, False, 3, None)
    assert (two.resolve_commands, two.bind, three.max_sessions) == (True, False, 9)
    assert four == Upstream(type="socks5", address=Address.of("192.0.2.4", 1080))
    assert list(file.table)[1] == "a@192.0.2.2:1080"


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("192.0.2.1:1080?bind=yes", "behind '?', with '&' between, stand bind=true, udp=true, "),
        ("192.0.2.1:1080?bind", "behind '?'"),
        ("192.0.2.1:1080?hunter2=true", "weight=NUMBER"),
        ("192.0.2.1:1080?weight=-1", "behind '?'"),
        ("192.0.2.1:1080?weight=0", "weight: not a whole number from 1 to"),
        ("http://192.0.2.1?bind=true", "bind: only with the types socks4, socks4a and socks5"),
        ("socks5://alice:hunter2?x@192.0.2.1", "the proxy's URL has a wrong host or port"),
    ],
)
def test_wrong_settings(tmp_path: Path, line: str, right: str) -> None:
    path = tmp_path / "members"
    path.write_text(line)
    with pytest.raises(SetFileError) as caught:
        MembersFile(str(path)).load()
    assert f"{path}, line 1: " in str(caught.value)
    assert right in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "socks6://alice:hunter2@a.example:1",
        "socks5://alice:hunter2@a.example:0",
        "socks5://alice:hunter2@a.example:port",
        "socks5://alice:hunter2@:1080",
        "socks5://alice:hunter2@a..example:1080",
        "socks5://alice:hunter2@a.example:1080/path",
        "socks4://alice:hunter2@a.example:1080",
        "http://al%3aice:hunter2@a.example:1080",
        "socks5://alice:hunter2@a.example:1080 more",
        "alice:hunter2",
        "alice:hunter2@a.example",
        "a.example",
        "a.example:1080:alice:hunter2",
        "socks5://alice:" + "hunter2" * 40 + "@a.example:1080",
        "hunter2\x00",
        "socks5://alice:hunter2\udcff@a.example:1",
    ],
    ids=itertools.count(),
)
def test_wrong_lines(tmp_path: Path, line: str) -> None:
    """A wrong line is a mistake that names the line and does not show it."""
    path = tmp_path / "members"
    path.write_text("192.0.2.1:1080\n" + line + "\n", "utf-8", "surrogateescape")
    with pytest.raises(SetFileError) as caught:
        MembersFile(str(path)).load()
    assert f"{path}, line 2: " in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_last_good_content(tmp_path: Path) -> None:
    """A file that becomes wrong, or empty, keeps its last content; a comment alone is an empty list."""
    path = tmp_path / "members"
    file = read(path, "192.0.2.1:1080\n")
    for text in ("192.0.2.1\n", ""):
        path.write_text(text)
        with pytest.raises(SetFileError):
            file.load()
        assert list(file.table) == ["192.0.2.1:1080"]
    path.write_text("# none\n")
    file.load()
    assert dict(file.table) == {}


def test_twice(tmp_path: Path) -> None:
    """The second line of a member does not count, and is told without its password."""
    file = read(tmp_path / "members", "socks5://a:hunter2@b.example:1\nsocks5://a:hunter2@b.example:1\n")
    assert len(file) == 1
    assert file.ignored == (f"{file.path}, line 2: a@b.example:1: stands there already",)


def test_names_are_one_line(tmp_path: Path) -> None:
    file = read(tmp_path / "members", "socks5://a%0Ab:p@c.example:1\n")
    (name,) = file.table
    assert "\n" not in name


@pytest_twisted.ensureDeferred
async def test_watched(tmp_path: Path) -> None:
    """The file is read again as files of sets are; a wrong one is told without a password, and not used."""
    path = tmp_path / "members"
    file = read(path, "192.0.2.1:1080\n")
    files = SetFiles(Clocked(), [file])
    files.watch()
    with heard() as lines:
        path.write_text("192.0.2.1:1080\nsocks5://alice:hunter2@192.0.2.2:1080\n")
        for _ in range(2):
            await files.look()
        assert list(file.table) == ["192.0.2.1:1080", "alice@192.0.2.2:1080"]
        assert lines == []
        path.write_text("socks5://alice:hunter2@192.0.2.3\nsocks5://alice:hunter2@:1\n")
        for _ in range(3):
            await files.look()
    (line,) = lines
    assert line.startswith("a file cannot be used, and its last content stays in use: ")
    assert ", line 2: " in line
    assert "hunter2" not in line
    assert len(file.table) == 2
    files.stop()
