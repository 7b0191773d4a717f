"""``socksproxy explain``: what rules decide, and why, for who runs the proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from socksproxy.cli import main
from socksproxy.wire.words import Address

RULES = """
[[rule]]
name = "inside"
allow = false
networks = ["private"]

[[rule]]
name = "admins"
allow = true
users = ["bob"]
clients = ["192.0.2.0/24"]
ports = [443]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "socks.toml"
    path.write_text(RULES)
    return str(path)


def test_text(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The decision, the rule that made it and why the earlier ones did not match."""
    question = [file, "--user", "bob", "--from", "192.0.2.7", "connect", "Example.com:443"]
    assert main(["explain", *question, "--address", "10.0.0.1", "--address", "203.0.113.9"]) == 0
    assert (
        capsys.readouterr().out
        == """\
example.com:443: allowed (by rule admins)
  1. inside (deny): depends on the address
  2. admins (allow): matches
  limits of client 192.0.2.7: binds 32, associations 4096
10.0.0.1:443: denied (by rule inside)
  1. inside (deny): matches
203.0.113.9:443: allowed (by rule admins)
  1. inside (deny): networks private, not 203.0.113.9
  2. admins (allow): matches
  limits of client 192.0.2.7: binds 32, associations 4096
"""
    )


def test_an_association(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether a request for one is granted, before there is a destination."""
    assert main(["explain", file, "--user", "bob", "--from", "192.0.2.7", "associate"]) == 0
    assert capsys.readouterr().out.startswith("a UDP association: allowed (by rule admins)\n")
    assert main(["explain", file, "--from", "192.0.2.7", "associate"]) == 0
    assert capsys.readouterr().out.startswith("a UDP association: denied (default: no rule matches)\n")
    assert main(["explain", file, "connect"]) == 1
    assert "connect needs HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [("resolve", "a.example"), ("resolve_ptr", "2001:db8::1")])
def test_commands_without_a_port(
    asked: tuple[str, str], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """RESOLVE and RESOLVE_PTR ask for a name or an address alone."""
    assert main(["explain", file, "--user", "bob", "--from", "192.0.2.7", *asked]) == 0
    assert capsys.readouterr().out.startswith(str(Address.of(asked[1], 0)))


RECORDS = """
[outgoing]
outgoing = ["127.0.0.1", "::1"]
[limits]
max-sessions = 50
max-sessions-per-client = 7
[limits.server]
upload = "10 MB/s"
[limits.network]
sessions = 20
[limits.user]
sessions = 5
new-sessions = "10/s"
[limits.session]
download = { rate = "1 MB/s", burst = "4 MB" }
[users.bob]
groups = ["staff"]
limits = { sessions = 9 }
outgoing = ["127.0.0.3", "fallback"]
[users.eve]
disabled = true
[users.old]
expires = 2020-01-01
[groups.staff]
limits = { upload = "1 MB/s" }
outgoing = ["127.0.0.4", "::1"]
[groups.others]
[[rule]]
name = "staff"
allow = true
groups = ["staff"]
limits = { sessions = 100 }
[[rule]]
name = "others"
allow = true
groups = ["others"]
outgoing = ["127.0.0.5", "fallback"]
"""


@pytest.fixture
def records(tmp_path: Path) -> str:
    path = tmp_path / "records.toml"
    path.write_text(RECORDS)
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_user(records: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The groups, the way out and the limits are those of the record, as in a session."""
    question = ["--from", "192.0.2.7", "connect", "203.0.113.9:443"]
    assert (
        said(capsys, records, "--user", "bob", *question)
        == """\
203.0.113.9:443: allowed (by rule staff)
  1. staff (allow): matches
  from 127.0.0.3, ::1
  limits of rule staff: sessions 100
  limits of user bob: sessions 9, new-sessions 10/s, upload 1 MB/s
  limits of client 192.0.2.7: sessions 7, binds 32, associations 4096
  limits of network 192.0.2.0/24: sessions 20
  limits of the server: sessions 50, upload 10 MB/s
  limits of each session: download 1 MB/s (burst 4 MB)
"""
    )
    assert (
        said(capsys, records, "--user", "alice", "--group", "others", "--from", "unix", *question[2:])
        == """\
203.0.113.9:443: allowed (by rule others)
  1. staff (allow): groups staff, not alice of others
  2. others (allow): matches
  from 127.0.0.5, ::1
  limits of user alice: sessions 5, new-sessions 10/s
  limits of client unix: sessions 7, binds 32, associations 4096
  limits of network unix: sessions 20
  limits of the server: sessions 50, upload 10 MB/s
  limits of each session: download 1 MB/s (burst 4 MB)
"""
    )
    nobody = said(capsys, records, *question)
    assert nobody.splitlines()[0] == "203.0.113.9:443: denied (default: no rule matches)"
    assert "limits" not in nobody


def test_user_as_data(records: str, capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = json.loads(said(capsys, records, "--json", "--user", "bob", "connect", "203.0.113.9:443"))
    assert told["outgoing"] == ["127.0.0.3", "::1"]
    assert told["limits"] == {
        "rule staff": {"sessions": 100},
        "user bob": {
            "sessions": 9,
            "new-sessions": {"per_second": 10, "burst": None},
            "upload": {"per_second": 1e6, "burst": None},
        },
        "client 127.0.0.1": {"sessions": 7, "binds": 32, "associations": 4096},
        "network 127.0.0.0/24": {"sessions": 20},
        "the server": {"sessions": 50, "upload": {"per_second": 1e7, "burst": None}},
        "each session": {"download": {"per_second": 1e6, "burst": 4_000_000}},
    }


@pytest.mark.parametrize(
    ("user", "reason"),
    [("eve", "the user is disabled"), ("old", "the user has expired, 2020-01-02 00:00")],
)
def test_barred(user: str, reason: str, records: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who cannot log in asks for nothing."""
    question = [records, "--user", user, "connect", "a.example:443"]
    assert said(capsys, *question) == f"a.example:443: denied ({user} cannot log in: {reason})\n"
    (told,) = json.loads(said(capsys, "--json", *question))
    assert told == {"destination": "a.example:443", "allowed": False, "barred": reason}


def test_without_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then what a proxy without rules permits is permitted; the rest of the file holds."""
    path = tmp_path / "socks.toml"
    path.write_text('[limits]\nmax-sessions = 7\n[outgoing]\noutgoing = ["192.0.2.9"]\n')
    assert said(capsys, str(path), "connect", "203.0.113.9:1") == (
        "203.0.113.9:1: allowed (default: there are no rules)\n  from 192.0.2.9\n"
        "  limits of client 127.0.0.1: binds 32, associations 4096\n  limits of the server: sessions 7\n"
    )
    special = said(capsys, str(path), "--from", "192.0.2.7", "connect", "127.0.0.1:1")
    assert special.startswith("127.0.0.1:1: denied (special: ")


def test_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", file, "associate", "[2001:db8::1]:53"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["destination"], told["allowed"], told["rule"]) == ("[2001:db8::1]:53", False, "default")
    assert [step["rule"] for step in told["steps"]] == ["inside", "admins"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["connect", "example.com"], "example.com: not HOST:PORT, such as example.com:443"),
        (["connect", "example.com:99999"], "example.com:99999: not HOST:PORT"),
        (["connect", f"example.com:{'1' * 5000}"], "not HOST:PORT"),
        (["connect", "a\nb:1"], "a\\nb:1: the host is not a valid name or address"),
        (["connect", "x..com:1"], "x..com:1: the host is not a valid name or address"),
        (
            ["--from", "nowhere", "connect", "a.example:1"],
            "--from nowhere: not a literal IPv4 or IPv6 address",
        ),
        (["--address", "a", "connect", "a.example:1"], "--address a: not a literal IPv4 or IPv6 address"),
    ],
)
def test_questions_without_sense(
    file: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments[:-2], file, "--", *arguments[-2:]]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shown"),
    [("\udcff", "\\udcff"), ("a\x1b[31m\nb", "a\\x1b[31m\\nb"), ("é", "\\xe9"), ("a\\b", "a\\b")],
)
def test_names_that_cannot_be_printed(file: str, name: str, shown: str) -> None:
    """Whatever somebody is called, and whatever the terminal knows: it is a line."""
    done = subprocess.run(
        [sys.executable, "-m", "socksproxy", "explain", file, "connect", "a.example:1", "--user", name],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[2] == f"  2. admins (allow): users bob, not {shown}"


LISTENING = """
[listeners]
listen = [
    "front=tcp:1080:interface=192.0.2.1", "any=tcp:1081", "local=unix:/run/s:mode=660", "pair=tcp:1083",
    "pair=tcp6:1083", "tcp:1084:interface=127.0.0.1", "unix:/run/t"
]
[[rule]]
name = "by-address"
allow = true
listeners = ["192.0.2.1:1080"]
[[rule]]
name = "by-socket"
allow = true
listeners = ["unix:/run/s"]
[[rule]]
name = "by-name"
allow = true
listeners = ["any", "pair", "elsewhere"]
[[rule]]
name = "by-kind"
allow = true
listeners = ["unix"]
"""


@pytest.mark.parametrize(
    ("listener", "rule"),
    [
        ("front", "by-address"),
        ("192.0.2.1:1080", "by-address"),
        ("[::ffff:192.0.2.1]:1080", "by-address"),
        ("local", "by-socket"),
        ("unix:/run/s", "by-socket"),
        ("unix:/run/t", "by-kind"),
        ("unix", "by-kind"),
        ("any", "by-name"),
        ("192.0.2.7:1081", "by-name"),
        ("[2001:db8::1]:1083", "by-name"),
        ("pair", "by-name"),
        ("elsewhere", "by-name"),
        ("127.0.0.1:1084", "default"),
    ],
)
def test_listeners(listener: str, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A listener has all of its words at once, as the server has them."""
    path = tmp_path / "socks.toml"
    path.write_text(LISTENING)
    question = [str(path), "--json", "--listener", listener, "connect", "a.example:1"]
    (told,) = json.loads(said(capsys, *question))
    assert told["rule"] == rule
    if "unix" in listener or listener == "local":
        assert "client unix" in told["limits"]


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ("frnot", "there is no such listener; did you mean front?"),
        (
            "tcp:1080",
            "must be a listener's name, an address and a port as in 192.0.2.1:1080, or unix: and a path",
        ),
    ],
)
def test_no_such_listener(
    listener: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "socks.toml"
    path.write_text(LISTENING)
    assert main(["explain", str(path), "--listener", listener, "connect", "a.example:1"]) == 1
    assert capsys.readouterr() == ("", f"socksproxy: --listener {listener}: {problem}\n")


HOURS = """
[users.bob]
expires = 2026-12-01T12:00:00
[[rule]]
name = "here"
allow = true
days = ["mon"]
hours = ["08:00-18:00"]
[[rule]]
name = "tokyo"
allow = true
hours = ["08:00-18:00"]
zone = "Asia/Tokyo"
"""


@pytest.mark.parametrize(
    ("at", "rule"),
    [
        # It is a Monday, and New York is five hours behind UTC, fourteen behind Tokyo.
        ("2026-11-30T09:00", "here"),
        ("2026-11-30 17:59:59", "here"),
        ("2026-11-30T18:00", "tokyo"),
        ("2026-11-30T07:59", "default"),
        ("2026-11-30T14:00Z", "here"),
        ("2026-11-30T15:00+01:00", "here"),
        ("2026-11-29T23:30Z", "tokyo"),
        ("2026-11-28", "tokyo"),
        ("2026-11-29T12:00", "default"),
    ],
)
def test_time(
    at: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A time without an offset is the machine's own, as hours without a zone are."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        path = tmp_path / "socks.toml"
        path.write_text(HOURS)
        (told,) = json.loads(said(capsys, str(path), "--json", "--at", at, "connect", "192.0.2.1:1"))
        assert told["rule"] == rule
        barred = said(
            capsys, str(path), "--user", "bob", "--at", "2026-12-01T12:00", "connect", "192.0.2.1:1"
        )
        assert "bob cannot log in: the user has expired" in barred
        still = said(capsys, str(path), "--user", "bob", "--at", "2026-12-01T11:59", "connect", "192.0.2.1:1")
        assert "cannot log in" not in still
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("at", ["", "9", "now", "2026-13-01", "0001-01-01T00:00", "\ud800"])
def test_times_without_sense(at: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["explain", file, "--at", at, "connect", "a.example:1"])
    if at.startswith("0001"):
        return  # a time that this machine may know, or not
    assert status == 1
    assert "not a date and time such as 2027-01-31T18:00" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["explain", "check", "--help"])
def test_reader_that_has_read_enough(command: str, tmp_path: Path) -> None:
    """``socksproxy explain ... | head`` ends without a traceback; what is wrong still shows in the status."""
    path = tmp_path / "socks.toml"
    path.write_text(
        "".join(f"[[rule]]\nname = 'rule{number}'\nallow = true\nusers = ['bob']\n" for number in range(2000))
    )
    if command == "check":
        path.write_text("prot = 1\n" + path.read_text().replace("allow", "alow"))
    arguments = {"explain": ["explain", str(path), "connect", "a.example:1"], "check": ["check", str(path)]}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "socksproxy", *arguments.get(command, [command])],
            stdout=subprocess.PIPE if command == "check" else writing,
            stderr=writing if command == "check" else subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == (1 if command == "check" else 0)
    assert not done.stderr
    assert not done.stdout


def test_output_that_cannot_be_written(file: str) -> None:
    """A full disk is told in one line."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "socksproxy", "explain", file, "connect", "a.example:1"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "socksproxy: the output cannot be written: no space left on device\n"


def test_mapped_client(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An IPv4 client is one in its disguise, too, as it is for the server."""
    question = [file, "--user", "bob", "--from", "::ffff:192.0.2.7", "connect", "203.0.113.9:443"]
    assert "allowed (by rule admins)" in said(capsys, *question)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "[[rule]]\nname = 5\n[timeouts]\nidle-timeout = -5",
            [
                "FILE:1: [[rule]] number 1: allow is missing",
                "FILE:2: [[rule]] number 1 name = 5: must be 1 to 64 letters, digits, '_', '.', ':' or '-'",
                "FILE:4: [timeouts] idle-timeout = -5: not a number of seconds, or 0 for never",
                "socksproxy: FILE: 3 mistakes",
            ],
        ),
        (
            "[[rule\n",
            [
                "FILE:1:7: expected ']]' at the end of an array declaration",
                "socksproxy: FILE: 1 mistake",
            ],
        ),
        (None, ["socksproxy: FILE: no such file or directory"]),
    ],
)
def test_mistakes(
    tmp_path: Path, text: str | None, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """They are told as ``check`` tells them, and nothing is explained."""
    path = tmp_path / "socks.toml"
    if text is not None:
        path.write_text(text)
    for command in (["explain", str(path), "connect", "a.example:1"], ["check", str(path)]):
        assert main(command) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.replace(str(path), "FILE").splitlines() == lines


def test_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What only the proxy's own machine has, or only its user may read, is not asked for."""
    path = tmp_path / "socks.toml"
    path.write_text(
        '[listeners]\nlisten = ["ssl:1:privateKey=/nonexistent"]\n'
        '[authentication]\nauth = ["htpasswd:/nonexistent"]\n[outgoing]\noutgoing = ["192.0.2.9"]\n'
    )
    assert "allowed" in said(capsys, str(path), "connect", "a.example:1")


def test_without_the_packages(file: str) -> None:
    """Both commands say what is missing in the same words."""
    parser = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    code = f"import sys; sys.modules['{parser}'] = None; from socksproxy.cli import main; sys.exit(main())"
    for command in (["explain", file, "connect", "a.example:1"], ["check", file]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"socksproxy: {file}: the extra [config] is not installed (")
        assert parser in done.stderr
        assert done.stderr.endswith("): pip install 'twisted-socksproxy[config]'\n")


def test_a_sticky_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name is read as that of a login: the user counts, and the word decides before the choice does."""
    file = tmp_path / "socks.toml"
    file.write_text(
        '[sticky]\n[outgoing]\noutgoing = ["127.0.0.1", "127.0.0.2", "random"]\n'
        '[[rule]]\nname = "bob"\nallow = true\nusers = ["bob"]\n'
    )
    question = ["connect", "203.0.113.9:443", "--user"]
    assert main(["explain", str(file), *question, "bob-session-abc"]) == 0
    told = capsys.readouterr().out
    assert "allowed (by rule bob)" in told
    assert "  outgoing: by the session word abc (the server)\n" in told
    assert main(["explain", str(file), *question, "bob"]) == 0
    assert "  outgoing: random (the server)\n" in capsys.readouterr().out
    assert main(["explain", str(file), *question, "bob-session-a b"]) == 1
    assert "the name has the separator" in capsys.readouterr().err


def test_quota(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a rule exempts from quotas, and the limits of each user under it."""
    file = tmp_path / "socks.toml"
    file.write_text('[[rule]]\nname = "free"\nallow = true\nquota = false\nuser-limits = { sessions = 5 }\n')
    assert main(["explain", str(file), "connect", "203.0.113.9:443"]) == 0
    told = capsys.readouterr().out
    assert "  limits of each user of rule free: sessions 5\n" in told
    assert "  for no quota but the rule's own\n" in told


def test_a_sticky_session_in_a_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The word decides before the choice of a pool does, too."""
    file = tmp_path / "socks.toml"
    file.write_text(
        '[sticky]\n[upstreams.a]\ntype = "direct"\n[upstreams.b]\ntype = "direct"\n'
        '[pools.eu]\nmembers = ["a", "b"]\nchoose = "random"\n[outgoing]\nvia = "eu"\n'
    )
    question = ["connect", "203.0.113.9:443", "--user"]
    assert main(["explain", str(file), *question, "bob-session-abc"]) == 0
    assert ": by the session word abc, before random: a, b;" in capsys.readouterr().out
    assert main(["explain", str(file), *question, "bob"]) == 0
    assert "session word" not in capsys.readouterr().out
