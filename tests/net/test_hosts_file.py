"""The hosts file, and localhost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from socksproxy.net import hosts_file
from socksproxy.net.hosts_file import HostsFile, is_localhost, parse
from socksproxy.wire.words import AddressType

from ..support.logs import heard

V4, V6 = AddressType.IPV4, AddressType.IPV6
TEXT = f"""
# A hosts file.
127.0.0.1\tlocalhost here.example  HERE   # and a comment
::1 localhost ip6-localhost
fe80::1%lo0 scoped.example
::ffff:192.0.2.1 mapped.example
192.0.2.2 dual.example.
2001:DB8::2 Dual.Example dual.example
192.0.2.3 123456789012 127.1 stra\u00dfe.example _odd-.example
192.0.2.4
192.0.2.5 127.1 0x7f 192.0.2.9 we!rd {"x" * 64} real.example other.example
not-an-address a.example
192.0.2.300 b.example
0.0.0.0 ads.example
"""


class Setting:
    """A hosts file, and a thread that reads when the test says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.reading: list[tuple[Deferred[Any], Callable[[str], Any], str]] = []
        self.hosts = HostsFile(self.clock, self._in_thread, str(path))

    def _in_thread(self, read: Callable[[str], Any], path: str) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.reading.append((done, read, path))
        return done

    def read(self) -> None:
        done, read, path = self.reading.pop(0)
        done.callback(read(path))

    def write(self, text: str) -> None:
        """Write another content, and let the time go by until it is looked at."""
        self.path.write_text(text, "utf-8")
        self.clock.advance(hosts_file.LOOK_EVERY)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    path = tmp_path / "hosts"
    path.write_text(TEXT, "utf-8")
    return Setting(path)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The warnings."""
    with heard() as lines:
        yield lines


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("localhost", (("127.0.0.1", V4), ("::1", V6))),
        ("localhost.", (("127.0.0.1", V4), ("::1", V6))),
        ("here.example", (("127.0.0.1", V4),)),
        ("here", (("127.0.0.1", V4),)),
        ("scoped.example", (("fe80::1", V6),)),
        ("mapped.example", (("192.0.2.1", V4),)),
        ("dual.example", (("192.0.2.2", V4), ("2001:db8::2", V6))),
        ("123456789012", (("192.0.2.3", V4),)),
        ("127.1", (("192.0.2.3", V4), ("192.0.2.5", V4))),
        ("xn--strae-oqa.example", (("192.0.2.3", V4),)),
        ("_odd-.example", (("192.0.2.3", V4),)),
        ("ads.example", (("0.0.0.0", V4),)),
        ("strasse.example", None),
        ("a.example", None),
        ("b.example", None),
        ("comment", None),
        ("nowhere.example", None),
    ],
)
def test_addresses(setting: Setting, name: str, addresses: Any) -> None:
    assert setting.hosts.addresses(name) == addresses
    assert setting.hosts.defines(name) is (addresses is not None)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.3", "123456789012"),
        ("192.0.2.5", "real.example"),
        ("127.0.0.1", "localhost"),
        ("192.0.2.1", "mapped.example"),
        ("2001:db8::2", "dual.example"),
        ("192.0.2.9", None),
    ],
)
def test_name(setting: Setting, host: str, name: str | None) -> None:
    assert setting.hosts.name(host) == name


def test_localhost_without_a_file(tmp_path: Path) -> None:
    """RFC 6761, section 6.3: it is this machine, whatever stands anywhere."""
    hosts = Setting(tmp_path / "nowhere").hosts
    for name in ("localhost", "localhost.", "a.localhost", "a.b.localhost.", "xn--a.localhost"):
        assert hosts.addresses(name) == (("127.0.0.1", V4), ("::1", V6))
        assert not hosts.defines(name)
    for name in ("localhost.example", "xlocalhost", "local", "localhost4", "a"):
        assert hosts.addresses(name) is None
        assert not is_localhost(name)


def test_changes_are_noticed(setting: Setting) -> None:
    """Within a second, and the file is not looked at more often."""
    assert setting.hosts.addresses("new.example") is None
    setting.path.write_text("192.0.2.9 new.example")
    assert setting.hosts.addresses("new.example") is None
    setting.clock.advance(hosts_file.LOOK_EVERY)
    assert setting.hosts.addresses("new.example") == (("192.0.2.9", V4),)
    assert setting.hosts.addresses("here.example") is None
    other = setting.path.with_name("other")
    other.write_text("192.0.2.8 new.example")
    os.rename(other, setting.path)
    setting.clock.advance(hosts_file.LOOK_EVERY)
    assert setting.hosts.addresses("new.example") == (("192.0.2.8", V4),)
    setting.path.unlink()
    setting.clock.advance(hosts_file.LOOK_EVERY)
    assert setting.hosts.addresses("new.example") is None


def test_large_file(setting: Setting) -> None:
    """A thread reads it, and what was read before counts until then."""
    large = "\n".join(f"0.0.0.0 ads{number}.example" for number in range(4000))
    setting.write(f"{large}\n192.0.2.9 new.example")
    assert setting.hosts.addresses("here.example") is not None
    assert setting.hosts.addresses("new.example") is None
    (reading,) = setting.reading
    assert reading[2] == str(setting.path)
    setting.read()
    assert setting.hosts.addresses("here.example") is None
    assert setting.hosts.addresses("new.example") == (("192.0.2.9", V4),)
    assert setting.hosts.addresses("ads17.example") is setting.hosts.addresses("ads3000.example")
    # It changes while it is read: what is read first is not what is there.
    setting.write(f"{large}\n192.0.2.10 new.example")
    setting.hosts.addresses("new.example")
    setting.write("192.0.2.11 new.example")
    assert setting.hosts.addresses("new.example") == (("192.0.2.11", V4),)
    setting.read()
    assert setting.hosts.addresses("new.example") == (("192.0.2.11", V4),)


def test_what_is_no_file(setting: Setting, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO, a directory or a huge file costs one line, and what was read before stays."""
    path = str(setting.path)
    os.unlink(path)
    os.mkfifo(path)
    setting.clock.advance(hosts_file.LOOK_EVERY)
    for _ in range(3):
        assert setting.hosts.addresses("here.example") is not None
        setting.clock.advance(hosts_file.LOOK_EVERY)
    os.unlink(path)
    os.mkdir(path)
    setting.clock.advance(hosts_file.LOOK_EVERY)
    assert setting.hosts.addresses("here.example") is not None
    os.rmdir(path)
    monkeypatch.setattr(hosts_file, "MOST_BYTES", 10)
    setting.write("192.0.2.11 new.example")
    assert setting.hosts.addresses("here.example") is not None
    assert len(told) == 3
    assert all(path in line and "its old entries stay" in line for line in told)


def test_a_thread_that_fails(setting: Setting) -> None:
    """It is tried again."""
    setting.write("x" * (hosts_file.SMALL + 1))
    setting.hosts.addresses("a.example")
    with heard():
        setting.reading.pop()[0].errback(ZeroDivisionError())
    assert setting.hosts.addresses("here.example") is not None
    setting.clock.advance(hosts_file.LOOK_EVERY)
    setting.hosts.addresses("a.example")
    assert len(setting.reading) == 1


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever stands in the file, it is read."""
    parse(data.splitlines())


def test_bound() -> None:
    """A name has as many addresses as one that a resolver finds."""
    entries = parse(f"10.0.{number >> 8}.{number & 255} a.example".encode() for number in range(1000))
    assert len(entries.addresses["a.example"]) == 64
