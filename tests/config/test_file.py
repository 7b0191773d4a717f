"""Mistakes in a configuration file: all of them, each with what would be right."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from socksproxy.app import Options
from socksproxy.auth.checkers.htpasswd import new_hash
from socksproxy.cli import main
from socksproxy.config.file import MOST_BYTES, read
from socksproxy.config.options import PLACES, TABLES
from socksproxy.config.words import OTHERS, shown
from tests.support.mistakes import SECRET, mistakes, quoted, toml, values, without_surrogates

HERE = Path(__file__).parent


def test_all_mistakes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The report, word by word. Nothing of a secret is in it."""
    monkeypatch.chdir(HERE)
    assert main(["check", "mistakes.toml"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == Path("mistakes.txt").read_text("utf-8").splitlines()
    assert len(err.splitlines()) > 130
    assert SECRET in Path("mistakes.toml").read_text("utf-8")
    assert SECRET not in err


@pytest.mark.parametrize(
    ("data", "text"),  # the beginning of it, where the rest is somebody else's
    [
        ("[listeners\n", "file:1:11: expected ']' at the end of a table declaration"),
        ("[listeners]\nport =", "file:2:7: invalid value"),
        ("[listeners]\n\nport = 1\nport = 2", "file:4:9: cannot overwrite a value"),
        ("[log]\nlog = 'a", 'file:2:9: expected "\'"'),
        ("port 5", "file:1:6: expected '=' after a key in a key/value pair"),
        (b"[log]\nlog = '\xff'", "file:2:8: not UTF-8"),
        ("x = " + "9" * 5000, "file: there is a number of too many digits"),
        ("[listeners]\nport = 0x" + "f" * 5000, "file: there is a number of too many digits"),
        ("x = " + "[" * 50000, "file: tables or lists are nested too deeply"),
        (f"[authentication]\nauth{'.a' * 5000} = 1", "file:2: tables or lists are nested too deeply"),
        (
            f"[limits.user]\nupload = {'9' * 400}",
            "file:2: [limits.user] upload = a number of many digits: a number that is too large",
        ),
        (b" " * (MOST_BYTES + 1), "file: more than 16 MiB are no configuration"),
        ("workers = 4", "file:1: workers: not a table; its keys stand below a line [workers]"),
        ("port = 4", "file:1: port: this key belongs in [listeners]"),
        ("[[log]]\n", "file:1: [log]: there is one such table, so its name stands in single brackets"),
        ("[[rooms]]\n", "file:1: [rooms]: no such table; there are listeners, auth"),
        (
            "[names]\nmax-sesions = 4",
            "file:2: [names] max-sesions: no such key; did you mean max-sessions in [limits]?",
        ),
        (
            '[log]\nlog-format = "json"',
            'file:2: [log] log-format = "json": needs log FILE',
        ),
        (
            '[authentication]\nsocks4-userid = "trust"',
            'file:2: [authentication] socks4-userid = "trust": needs auth: otherwise clients give no name',
        ),
        (
            '[udp]\nudp-port = 5\nudp-ports = "5-6"',
            'file:3: [udp] udp-ports = "5-6": has a port for each client, udp-port one for all: not both',
        ),
        (
            '[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\nport = 5',
            (
                'file:2: [listeners] listen = ["tcp:0:interface=127.0.0.1"]: '
                "says all: leave interface and port out, or listen"
            ),
        ),
        (
            '[listeners]\nlisten = [\n"tcp:0:interface=127.0.0.1",\n"tcp:0"]',
            (
                'file:4: [listeners] listen[1] = "tcp:0": tcp:0 is not on a loopback address, and every '
                "client that reaches it can use the proxy without authentication: listen on 127.0.0.1, "
                "[::1] or a Unix socket, add auth, or open"
            ),
        ),
        (
            '[listeners]\ninterface = "0.0.0.0"\nport = 1',
            (
                'file:2: [listeners] interface = "0.0.0.0": tcp:0.0.0.0:1 is not on a loopback address, and '
                "every client that reaches it can use the proxy without authentication: listen on "
                "127.0.0.1, [::1] or a Unix socket, add auth, or open"
            ),
        ),
        ('[log]\nlog = "a\\u001bb/c"', 'file:2: [log] log = "a\\u001bb/c": no such file or directory'),
    ],
)
def test_one(data: bytes | str, text: str) -> None:
    """Where it is, what is there, and what would be right."""
    found = mistakes(data)
    assert len(found) == 1
    assert found[0].startswith(text)


@pytest.mark.parametrize(
    "data",
    [
        # Each has one mistake from which others would follow.
        '[listeners]\ninterface = "0.0.0.0"\nopne = true',
        '[listeners]\ninterface = "0.0.0.0"\n[authentication]\nauth = ["nonsense"]',
        '[listeners]\ninterface = "0.0.0.0"\n[authentication]\nauth = "memory:a:b"',
        '[listeners]\ninterface = "0.0.0.0"\n[authentification]\nauth = ["memory:a:b"]',
        '[listeners]\nauth = ["memory:a:b"]\ninterface = "0.0.0.0"',
        '[authentication]\nsocks4-userid = "trust"\nauth = 5',
        '[log]\nlog-format = "json"\nlog = 5',
        "[udp]\nudp-port = 5\n[workers]\nworkers = 'many'",
        "listeners = 5",
    ],
)
def test_nothing_follows_from_a_mistake(data: str) -> None:
    """One mistake is told once: it is not told what its effects would be."""
    assert len(mistakes(data)) == 1


@pytest.mark.parametrize(
    "data",
    [
        f'[authentication]\nauth = ["memory:bob:{SECRET}:x"]',
        f'[authentication]\nauth = "memory:bob:{SECRET}"',
        f'[authentication]\nauth = [["memory:bob:{SECRET}"]]',
        f'[authentication]\nauht = ["memory:bob:{SECRET}"]',
        f'[log]\nauth = ["memory:bob:{SECRET}"]',
        f'[autentication]\nauth = ["memory:bob:{SECRET}"]',
        f'auth = ["memory:bob:{SECRET}"]',
        f'[authentication]\nauth = ["memory:bob:{SECRET}"',
        f'authentication = ["memory:bob:{SECRET}"]',
    ],
)
def test_secrets(data: str) -> None:
    """A report can be shown to somebody who helps."""
    found = mistakes(data)
    assert len(found) == 1
    assert SECRET not in found[0]


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without mistakes is told to be so, and nothing is made of it."""
    file = tmp_path / "socks.toml"
    file.write_text(f'[log]\nlog = "{tmp_path}/log"\n[listeners]\nlisten = ["unix:{tmp_path}/s"]\n', "utf-8")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}: no mistakes\n", "")
    assert list(tmp_path.iterdir()) == [file]
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr() == ("", f"socksproxy: {tmp_path}/nowhere: no such file or directory\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str) -> None:
    """A byte order mark of UTF-8 is nothing; another encoding is told in one line."""
    file = tmp_path / "proxy.toml"
    file.write_bytes("[listeners]\r\nport = 1080".encode(encoding))
    status = main(["check", str(file)])
    said, complaint = capsys.readouterr()
    if encoding == "utf-8-sig":
        assert (status, said, complaint) == (0, f"{file}: no mistakes\n", "")
    else:
        first, last = complaint.splitlines()
        assert first == f"{file}: is in UTF-16, or has a NUL byte: right is UTF-8"
        assert last == f"socksproxy: {file}: 1 mistake"


def test_check_tells_lines_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line of a file of passwords that does not count is told."""
    hashed, plain, file = (tmp_path / name for name in ("hashed", "plain", "proxy.toml"))
    hashed.write_bytes(
        b"bob:" + new_hash(b"x", 4) + b"\n" + b"".join(b"u%d:x\n" % number for number in range(12))
    )
    plain.write_bytes(b"bob:x\neve:\n")
    file.write_text(f"[authentication]\nauth = ['htpasswd:{hashed}', 'file:{plain}']\n")
    assert main(["check", str(file)]) == 0
    said, complaint = capsys.readouterr()
    assert said == f"{file}: no mistakes\n"
    expected = [f"warning: {hashed}, line {number} does not count: plain text" for number in range(2, 14)]
    assert complaint.splitlines() == [*expected, f"warning: {plain}, line 2 does not count: no password"]


def test_check_of_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that systemd will pass cannot be there yet; what is said of them still has to make sense."""
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert mistakes('[listeners]\nlisten = ["systemd:domain=INET:index=0"]') == []
    assert mistakes('[listeners]\nlisten = ["systemd:domain=INET:name=socks"]') == []
    assert len(mistakes('[listeners]\nlisten = ["systemd:domain=INET"]')) == 1


@pytest.mark.parametrize(("path", "text"), [(".", "is a directory"), ("a/b", "no such file or directory")])
def test_logs_that_cannot_be(path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be found when the log opens is found before."""
    monkeypatch.chdir(tmp_path)
    assert mistakes(f'[log]\nlog = "{path}"') == [f'file:2: [log] log = "{path}": {text}']


def test_log_with_a_nul() -> None:
    """No file has such a name."""
    assert mistakes('[log]\nlog = "a\\u0000b"') == ['file:2: [log] log = "a\\u0000b": not a path']


# No value makes a traceback.


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = st.sampled_from([(table, key) for key, table in PLACES.items()])


@given(keys, values.filter(without_surrogates))
def test_any_value(place: tuple[str, str], value: Any) -> None:
    """Of a value the proxy makes something, or the operator reads lines of it."""
    table, key = place
    for line in mistakes(f"[{table}]\n{key} = {toml(value)}\n"):
        assert line.startswith("file:")
        assert line.isprintable()


@given(
    st.dictionaries(st.sampled_from([*TABLES, *OTHERS, *PLACES]) | texts, values.filter(without_surrogates))
)
def test_any_document(document: dict[str, Any]) -> None:
    """The same for whole files."""
    for line in mistakes("".join(f"{quoted(key)} = {toml(value)}\n" for key, value in document.items())):
        assert line.startswith("file:")
        assert line.isprintable()


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(data: bytes) -> None:
    """The same for what is not even TOML."""
    for line in mistakes(data):
        assert line.startswith("file:")
        assert line.isprintable()


@given(values)
def test_shown(value: Any) -> None:
    """What is shown of a value is short."""
    assert len(shown(value)) <= 63


def test_read_needs_no_reactor() -> None:
    """What a file says can be had by itself."""
    assert read(b"[timeouts]\nidle-timeout = 5", "file").said == {"idle-timeout": "5"}
    with pytest.raises(UsageError):
        Options(MemoryReactorClock(), config=b"[").parseOptions(["--config=file"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begin", "piece", "pieces", "text"),
    [
        ("a", ".a", 450_000, "file:1: tables or lists are nested too deeply"),
        ("[a", ".a", 450_000, "file:1: tables or lists are nested too deeply"),
        ("", "k%d = 1\n", 20_000, "file:1: k0: keys stand in tables, and there is no key of this name"),
        ("", "a%d.b.c.d.e.f = 1\n", 5_000, "file:1: [a0]: no such table"),
        ("[users.bob]\n", "k%d = 1\n", 20_000, "file:2: [users.bob] k0: no such key"),
        ("[sets.a]\nnames = [", '"a..b%d",\n', 20_000, "file:2: [sets.a] names"),
    ],
    ids=["one key", "one header", "keys", "dotted keys", "user", "set"],
)
def test_large_and_wrong(begin: str, piece: str, pieces: int, text: str) -> None:
    """A large file that is wrong is told within seconds, and not at any length."""
    numbers = count()
    text_of_file = begin + "".join(re.sub("%d", lambda _: str(next(numbers)), piece) for _ in range(pieces))
    if "[" in begin and begin.endswith("["):
        text_of_file += "]\n"
    began = thread_time()
    lines = read(text_of_file.encode(), "file").report([])
    assert thread_time() - began < 20, "it took minutes, or hours"
    assert lines[0].startswith(text)
    assert len(lines) <= 101
