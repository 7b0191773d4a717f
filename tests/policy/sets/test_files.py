"""Files of sets: see :mod:`socksproxy.policy.sets.files`."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from threading import Thread
from time import thread_time
from typing import Any

import pytest
from twisted.internet import reactor as _reactor

from socksproxy.policy.sets import (
    NamesFile,
    NameTable,
    NetworksFile,
    NetworkTable,
    SetFile,
    SetFileError,
    tables,
)
from socksproxy.runtime import watched_file
from socksproxy.runtime.files import FileContent, read_regular_file

from ...support.busy import processor_seconds

reactor: Any = _reactor


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_networks_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "nets.txt",
        "# what is bad\n\n10.0.0.0/8   # all of it\r\n192.0.2.1\n198.51.100.5 - 198.51.100.9\n2001:db8::/32\n"
        "2001:DB9::1\n::ffff:203.0.113.0/120\n::ffff:203.0.114.1\n0.0.0.0/32\n2001:db7::1-2001:db7::ffff",
    )
    networks = NetworksFile(path)
    networks.load()

    def holds(host: str) -> bool:
        address = ip_address(host)
        return networks.range_of(int(address), address.version == 6) is not None

    inside = "10.0.0.0 10.255.255.255 192.0.2.1 198.51.100.5 198.51.100.9 2001:db8::5 2001:db9::1 203.0.113.7"
    assert all(map(holds, [*inside.split(), "0.0.0.0", "203.0.114.1", "2001:db7::9"]))
    outside = "9.255.255.255 11.0.0.0 192.0.2.2 198.51.100.4 198.51.100.10 2001:db9::2 203.0.112.255 0.0.0.1"
    assert not any(map(holds, outside.split()))
    ten = ip_network("10.0.0.0/8")
    assert networks.range_of(10 << 24 | 5, False) == (int(ten[0]), int(ten[-1]))


def test_names_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "names.txt",
        "# bad\nADS.example.\n*.Tracker.test\n.both.test # and below\nb\u00fccher.example\n_srv.a_b.test\n",
    )
    names = NamesFile(path)
    names.load()
    inside = "ads.example a.tracker.test a.b.tracker.test both.test x.both.test xn--bcher-kva.example"
    assert all(map(names.holds, [*inside.split(), "_srv.a_b.test"]))
    assert not any(map(names.holds, ["x.ads.example", "tracker.test", "example", "test", "a.x.test"]))


@pytest.mark.parametrize("kind", [NetworksFile, NamesFile])
@pytest.mark.parametrize("content", ["\ufeff{0}\n{1}\n", "{0}\r\n{1}", "\ufeff# a set\r\n\t{0} \r\n{1}\r\n"])
def test_as_editors_write_it(tmp_path: Path, kind: Any, content: str) -> None:
    """A byte order mark and any end of a line are not a part of an entry; the last line needs no end."""
    entries = ("192.0.2.1", "10.0.0.0/8") if kind is NetworksFile else ("a.example", "0.0.0.0 b.example")
    file = kind(write(tmp_path / "set.txt", content.format(*entries).encode()))
    file.load()
    assert len(file) == 2
    assert file.holds("a.example") if kind is NamesFile else file.range_of(0xC0000201, False)


@pytest.mark.parametrize("kind", [NetworksFile, NamesFile])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings(tmp_path: Path, kind: Any, encoding: str) -> None:
    """They are told in one line, and no entry is made of them."""
    path = write(tmp_path / "set.txt", "# a set\n192.0.2.1\n".encode(encoding))
    with pytest.raises(SetFileError) as caught:
        kind(path).load()
    assert str(caught.value) == f"{path}: is in UTF-16, or has a NUL byte: right is UTF-8"


def test_hosts_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "hosts",
        "127.0.0.1 localhost localhost.localdomain\n::1 ip6-localhost ip6-loopback\nfe80::1%lo0 localhost\n"
        "0.0.0.0 ads.example Tracker.test # both\n0.0.0.0\tx-1.test\n0.0.0.0 0.0.0.0\n",
    )
    names = NamesFile(path)
    names.load()
    assert all(map(names.holds, ["ads.example", "tracker.test", "x-1.test"]))
    assert not any(map(names.holds, ["localhost", "a.ads.example", "ip6-loopback"]))
    assert len(names) == 3


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (NetworksFile, "10.0.0.0/8\n10.0.0.1/8\n", "line 2: '10.0.0.1/8': has bits set behind its prefix"),
        (NetworksFile, "10.0.0.0/33\n", "line 1: '10.0.0.0/33': must be an address or a network"),
        (NetworksFile, f"10.0.0.0/{'9' * 5000}\n", "must be an address or a network"),
        (NetworksFile, "\n\n10.0.0.9-10.0.0.1", "line 3: '10.0.0.9-10.0.0.1': must be two addresses"),
        (NetworksFile, "2001:db8::1-10.0.0.1", "line 1: '2001:db8::1-10.0.0.1': must be two addresses"),
        (NetworksFile, "a.example", "line 1: 'a.example': must be an address or a network"),
        (NetworksFile, b"10.0.0.1\n\xff\xfe\n", "line 2: b'\\xff\\xfe': is not UTF-8"),
        (NetworksFile, "", "is empty; for an empty set, write a comment"),
        (
            NamesFile,
            "a.example b.example",
            "line 1: 'a.example b.example': must be one name, or an address and names",
        ),
        (NamesFile, "a..example", "line 1: 'a..example': is no name that the DNS allows"),
        (NamesFile, "192.0.2.1", "line 1: '192.0.2.1': is an address"),
        (NamesFile, "a*.example", "line 1: 'a*.example': must be a name, *. and a name, or . and a name"),
        (
            NamesFile,
            "0.0.0.0 a..b c..d",
            "line 1: 'a..b': is no name that the DNS allows; no entry of the file",
        ),
        (NamesFile, "@ads", "line 1: '@ads': must be a name"),
    ],
)
def test_broken_file(tmp_path: Path, kind: Any, text: str | bytes, told: str) -> None:
    """What is told has the file, the line and the entry; the old content stays."""
    path = tmp_path / "set.txt"
    content = kind(write(path, "10.9.9.9" if kind is NetworksFile else "old.example"))
    content.load()
    write(path, text)
    with pytest.raises(SetFileError) as caught:
        content.load()
    assert str(caught.value).startswith(f"{path}")
    assert told in str(caught.value)
    assert len(content) == 1


NEVER = [
    *("a..example", "192.0.2.1", "a*.example", "@ads", "127.1", "0x7f000001", "*.1.2", "http://a.example/"),
    *("||a.example^", "i\u2764.example", "a.example:80", "x" * 64 + ".example", "*." + "a." * 125 + "ab"),
    *(".a..b", "*.", "*", "..a", "a.example b.example", "a.b." * 63 + "ab"),
]
ODD = [
    *(
        "-a.example",
        "a-.example",
        "-",
        "_x.a_b.example",
        "163.com",
        "123456789012",
        "r3---sn.example",
        "xn--.example",
    ),
    *("a.1", "a." * 125 + "abc", "1.2.3.4.5"),
]


def test_entries_that_can_never_match(tmp_path: Path) -> None:
    """Each is told by its line, and all others count."""
    lines = [line for pair in zip(NEVER, [*ODD, *ODD], strict=False) for line in pair]
    path = write(
        tmp_path / "names.txt", "\n".join([*lines, ".stra\u00dfe.example", "0.0.0.0 b..c x.example"])
    )
    names = NamesFile(path)
    names.load()
    assert all(map(names.holds, [*ODD, "x.example", "xn--strae-oqa.example", "b.xn--strae-oqa.example"]))
    assert not any(map(names.holds, ["b..c", "strasse.example", "xn--strasse.example"]))
    assert len(names.ignored) == 11
    for number, (told, entry) in enumerate(zip(names.ignored, NEVER, strict=False)):
        if number < 10:
            assert told.startswith(f"{path}, line {2 * number + 1}: {entry[:80]!r}: "), told
    assert names.ignored[-1] == f"{path}: {len(NEVER) + 1 - 10} more entries do not count"
    again = NamesFile(path)
    again.load()
    assert again.ignored == names.ignored


def test_a_name_in_another_encoding(tmp_path: Path) -> None:
    """One name that is not UTF-8 does not count; the others do."""
    (tmp_path / "names.txt").write_bytes(b"a.example\ncaf\xe9.example\nb.example\n")
    names = NamesFile(str(tmp_path / "names.txt"))
    names.load()
    assert names.holds("a.example")
    assert names.holds("b.example")
    assert names.ignored == (f"{tmp_path}/names.txt, line 2: b'caf\\xe9.example': is not UTF-8",)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SetFileError, match="no such file"):
        NamesFile(str(tmp_path / "gone")).load()


def test_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file may be half of this and half of that: it is read once more."""
    path = tmp_path / "set.txt"
    names = NamesFile(write(path, "a.example\n"))

    def slowly(*arguments: Any) -> FileContent:
        content = read_regular_file(*arguments)
        write(path, "a.example\nb.example\n")
        return content._replace(changed=True)

    monkeypatch.setattr(watched_file, "read_regular_file", slowly)
    with pytest.raises(SetFileError, match="changes while it is read"):
        names.load()
    monkeypatch.undo()
    names.changed()
    assert names.changed()
    names.load()
    assert len(names) == 2
    assert not names.changed()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        (NamesFile, "a{0}.b{1}.example"),
        (NetworksFile, "10.{2}.{3}.{4}"),
        (NetworksFile, "2001:db8:{0:x}:{1:x}::/64"),
    ],
)
def test_no_long_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[SetFile], entry: str
) -> None:
    """The thread that reads a large file leaves the interpreter's lock to other threads all the time."""
    numbers = (number * 7919 % 65521 for number in range(40_000))
    parts = ((n, n ^ 0x5555, n >> 12, n >> 4 & 255, n & 15) for n in numbers)
    text = "\n".join(entry.format(*part) for part in parts)
    steps: list[float] = []
    began = 0.0

    def pause(seconds: float) -> None:
        nonlocal began
        steps.append(thread_time() - began)
        began = thread_time()

    def load(file: SetFile) -> None:
        nonlocal began
        began = thread_time()
        file.load()
        pause(0)

    numbers_of_files = count()

    def longest() -> float:
        steps.clear()
        file = kind(write(tmp_path / f"set{next(numbers_of_files)}.txt", text))
        thread = Thread(target=load, args=(file,))
        thread.start()
        thread.join()
        assert len(file.table) > 1000
        assert len(steps) > 2 * 40_000 // 1000
        return max(steps)

    monkeypatch.setattr(tables, "sleep", pause)
    most = processor_seconds(0.02)
    # A collection of garbage may make one step slow, and the cold caches of a busy machine some.
    assert any(longest() < most for _ in range(3))


def test_what_another_one_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is as another set has read it is not read again; one that has changed is."""
    path = tmp_path / "networks"
    path.write_text("192.0.2.0/24\n")
    first, second, third = (NetworksFile(str(path)) for _ in range(3))
    first.load()
    read: list[str] = []
    monkeypatch.setattr(NetworksFile, "_table", lambda self, lines: read.append(self.path) or NetworkTable())
    second.load()
    assert second.table is first.table
    assert not read
    path.write_text("192.0.2.0/24\n198.51.100.0/24\n")
    third.load()
    assert read == [str(path)]
    assert second.table is first.table is not third.table
    names = NamesFile(str(path))
    monkeypatch.setattr(NamesFile, "_table", lambda self, lines: NameTable())
    names.load()
    assert isinstance(names.table, NameTable)
