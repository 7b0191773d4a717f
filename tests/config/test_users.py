"""Users and groups in a configuration file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from hypothesis import given, strategies as st
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options
from socksproxy.auth.checkers.htpasswd import new_hash
from socksproxy.auth.directory import DirectoryRealm, GroupRecord, UserRecord
from socksproxy.config.file import read
from socksproxy.config.users import GROUP_KEYS, USER_KEYS
from socksproxy.limits import Limits, Rate
from socksproxy.net.resources import CheckedResources

from ..support.mistakes import SECRET, elsewhere, mistakes, toml, values, without_surrogates
from ..support.origin import connected, shouter
from ..support.processes import Program

__all__ = ["elsewhere", "shouter"]

HASH = new_hash(b"secret", 4).decode()
BOB = f'[users.bob]\npassword = "{HASH}"\n'
NO_GROUP_KEY = "no such key; there are expires, disabled, outgoing, via and limits"
EMPTY = "must not be empty; leave it out where it does not matter"
NO_TABLES = "[users]: each has a table of its own: it begins with [users.NAME]"
RIGHT = (
    "right is a hash: bcrypt (socksproxy passwd, or htpasswd -B), argon2, yescrypt, sha512-crypt, "
    "sha256-crypt or apr1"
)
NOT_WHOLE = f"a hash that is not whole; {RIGHT}"


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address is this machine's."""
    monkeypatch.setattr("socksproxy.config.command_line.is_local", lambda host: True)


def parsed(config: str, *options: str) -> Options:
    reactor = MemoryReactorClock()
    found = Options(reactor, CheckedResources(reactor), config.encode())
    found.parseOptions(["--config=file", *options])
    return found


def record(config: str, name: str = "bob") -> UserRecord:
    directory = read(config.encode(), "file").directory
    assert directory is not None
    found = directory.find(name)
    assert found is not None
    return found


def test_record() -> None:
    """All that can be said of a user, and what the groups say besides."""
    found = record(
        f"""
        [users.bob]
        password = "{HASH}"
        groups = ["staff", "slow"]
        expires = 2027-01-31T18:00:00Z
        limits = {{ sessions = 5 }}
        [groups.staff]
        outgoing = ["192.0.2.7"]
        limits.upload = "1 MB/s"
        disabled = true
        [groups.slow]
        limits = {{ upload = 5, download = {{ rate = 7, burst = "1 kB" }} }}
        """
    )
    assert found == UserRecord(
        password=HASH,
        groups=["staff", "slow"],
        expires=datetime(2027, 1, 31, 18, tzinfo=timezone.utc),
        disabled=True,
        outgoing=["192.0.2.7"],
        limits=Limits(sessions=5, upload=Rate(1e6), download=Rate(7, 1000)),
    )


def test_names() -> None:
    """Whatever a name holds, in quotes."""
    assert record('[users."a b.c"]\ndisabled = true', "a b.c").disabled
    assert record("[users.'jörg']\ndisabled = true", "jörg").disabled


def test_nobody() -> None:
    """Without users there is no directory, whatever groups there are."""
    assert parsed("")["users"] is None
    assert parsed("[groups.staff]")["users"] is None
    assert parsed("[groups.staff]").plan.settings.portal is None


def test_keys() -> None:
    """A new field of a record has a key."""
    assert set(USER_KEYS) == {field.name for field in fields(UserRecord)}
    assert set(GROUP_KEYS) == {field.name for field in fields(GroupRecord)}


@pytest.mark.parametrize("key", USER_KEYS)
def test_examples(key: str) -> None:
    """The examples of the documentation are right."""
    example = f'"{HASH}"' if key == "password" else USER_KEYS[key].example
    assert mistakes(f"[users.bob]\n{key} = {example}\n[groups.staff]") == []
    if key in GROUP_KEYS:
        assert mistakes(f"[groups.staff]\n{key} = {example}") == []


# Who is asked.


def portal(options: Options) -> Any:
    return options.plan.settings.portal


def checkers(options: Options) -> list[str]:
    """In the order in which they are asked about passwords."""
    chain = portal(options).checkers[IUsernamePassword].checker
    return [type(checker).__name__ for checker in chain.checkers]


def test_passwords_are_asked_for() -> None:
    """Users with passwords are authentication by themselves."""
    options = parsed('[listeners]\ninterface = "0.0.0.0"\n' + BOB)
    assert options.plan.guarded
    assert portal(options).listCredentialsInterfaces() == [IUsernamePassword]
    assert checkers(options) == ["RecordsChecker"]
    assert isinstance(portal(options).realm, DirectoryRealm)
    assert portal(options).realm.directory is options["users"]


@pytest.mark.parametrize("where", ["file", "command line"])
def test_beside_others(where: str) -> None:
    """The records are asked first, whoever says what else there is."""
    if where == "file":
        options = parsed(BOB + '[authentication]\nauth = ["memory:eve:x", "anonymous"]')
    else:
        options = parsed(BOB, "--auth=memory:eve:x", "--auth=anonymous")
    assert checkers(options) == ["RecordsChecker", "InMemoryUsernamePasswordDatabaseDontUse"]
    assert not options.plan.guarded  # because of anonymous


def test_without_passwords() -> None:
    """Others know who is who; the records say what they may."""
    options = parsed('[users.bob]\ndisabled = true\n[authentication]\nauth = ["memory:bob:x"]')
    assert checkers(options) == ["InMemoryUsernamePasswordDatabaseDontUse"]
    assert isinstance(portal(options).realm, DirectoryRealm)
    assert len(mistakes('[listeners]\ninterface = "0.0.0.0"\n[users.bob]\ndisabled = true')) == 1


# Mistakes.


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            (
                '[users.bob]\npasword = "x"\ngroup = ["a"]\nexpires = "2027-01-31"\n'
                'disabled = 1\noutgoing = "::1"'
            ),
            [
                "file:2: [users.bob] pasword: no such key; did you mean password?",
                "file:3: [users.bob] group: no such key; did you mean groups?",
                (
                    'file:4: [users.bob] expires = "2027-01-31": not a date such as 2027-01-31, '
                    "or a date and time such as 2027-01-31T18:00:00"
                ),
                "file:5: [users.bob] disabled = 1: not true or false",
                'file:6: [users.bob] outgoing = "::1": not a list in brackets, nor "same"',
            ],
        ),
        (
            '[users."a b"]\ngroups = ["staff", 5, "stuff", "others"]\n[groups.staff]',
            [
                'file:2: [users."a b"] groups[1] = 5: not text in quotes',
                'file:2: [users."a b"] groups[2] = "stuff": there is no such group; did you mean staff?',
                (
                    'file:2: [users."a b"] groups[3] = "others": there is no such group; '
                    "each has a table that begins with [groups.NAME]"
                ),
            ],
        ),
        (
            (
                "[groups.staff]\npassword = 'x'\ngroups = ['a']\nlimits = { sesions = 5 }\n"
                "outgoing = []\nexpires = 12:00:00"
            ),
            [
                f"file:2: [groups.staff] password: {NO_GROUP_KEY}",
                f"file:3: [groups.staff] groups: {NO_GROUP_KEY}",
                "file:4: [groups.staff] limits.sesions: no such key; did you mean sessions?",
                f"file:5: [groups.staff] outgoing = []: {EMPTY}",
                (
                    "file:6: [groups.staff] expires = 12:00:00: not a date such as 2027-01-31, "
                    "or a date and time such as 2027-01-31T18:00:00"
                ),
            ],
        ),
        (
            '[users.bob]\noutgoing = ["192.0.2.1", "a.example"]\nexpires = 9999-12-31\nlimits.daily = "1 GB"',
            [
                (
                    'file:2: [users.bob] outgoing[1] = "a.example": not a literal IPv4 or IPv6 address, '
                    "a prefix, or a word such as same"
                ),
                "file:3: [users.bob] expires = 9999-12-31: a time that this machine cannot tell",
                (
                    'file:4: [users.bob] limits.daily = "1 GB": needs quota-file in [limits], '
                    "where what has been used is kept"
                ),
            ],
        ),
        ("users = 5", ["file:1: [users]: each has a table of its own: it begins with [users.NAME]"]),
        ("[users]\nbob = 5", ["file:2: [users.bob]: not a table: it begins with [users.NAME]"]),
        ("[[groups]]", ["file:1: [groups]: each has a table of its own: it begins with [groups.NAME]"]),
        ("[users.'']", ['file:1: [users.""]: a user\'s name has 1 to 255 bytes']),
        ("[user.bob]\ndisabled = true", ["file:1: [user]: no such table; did you mean [users]?"]),
        (
            "[[rule]]\nname = 'a'\nallow = true\ngroups = ['stuff']\n[groups.staff]",
            ['file:4: [[rule]] "a" groups[0] = "stuff": there is no such group; did you mean staff?'],
        ),
        # One mistake, from which others would follow.
        (
            "[listeners]\ninterface = '0.0.0.0'\n[users.bob]\npassword = 5",
            ["file:4: [users.bob] password: not text in quotes"],
        ),
        (
            "[authentication]\nsocks4-userid = 'trust'\n[users.bob]\npassword = 5",
            ["file:4: [users.bob] password: not text in quotes"],
        ),
        (
            "[users.bob]\ngroups = ['staff']\n[[rule]]\nname = 'a'\nallow = true\ngroups = ['b']\n[[groups]]",
            ["file:7: [groups]: each has a table of its own: it begins with [groups.NAME]"],
        ),
    ],
)
def test_mistakes(config: str, expected: list[str]) -> None:
    """Each names the table, the key, the value and what would be right."""
    assert mistakes(config) == expected


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (f'[users.bob]\npassword = "{SECRET}"', f"[users.bob] password: plain text; {RIGHT}"),
        (
            f'[users.bob]\npassword = "$2y${SECRET}"',
            f"[users.bob] password: {NOT_WHOLE}",
        ),
        (f'[users.bob]\npassword = ["{SECRET}"]', "[users.bob] password: not text in quotes"),
        (f'[users.bob]\npassword = {{ a = "{SECRET}" }}', "[users.bob] password: not text in quotes"),
        (f'[users.bob]\npassword.{SECRET} = "{SECRET}"', "[users.bob] password: not text in quotes"),
        (f'[users.bob]\npasswort = "{SECRET}"', "[users.bob] passwort: no such key; did you mean password?"),
        (f'[users]\nbob = "{SECRET}"', "[users.bob]: not a table: it begins with [users.NAME]"),
        (f'[users]\nbob = ["{SECRET}"]', "[users.bob]: not a table: it begins with [users.NAME]"),
        (f'users = "{SECRET}"', NO_TABLES),
        (
            f'[[users]]\npassword = "{SECRET}"',
            NO_TABLES,
        ),
        (f'[user.bob]\npassword = "{SECRET}"', "[user]: no such table; did you mean [users]?"),
        (f'[groups.staff]\npassword = "{SECRET}"', "[groups.staff] password: no such key"),
        (f'[users.bob.limits]\npassword = "{SECRET}"', "[users.bob] limits.password: no such key"),
        (f'password = "{SECRET}"', "password: keys stand in tables"),
        (f'[users.bob]\npassword = "{SECRET}', ""),
    ],
)
def test_secrets(config: str, told: str) -> None:
    """A report can be shown to somebody who helps."""
    (line,) = mistakes(config)
    assert line.partition(": ")[2].startswith(told)
    assert SECRET not in line


def test_without_the_packages(tmp_path: Path) -> None:
    """What is missing is told as any mistake; users without passwords do without."""
    for text, status, told in (
        (BOB, 1, "socks.toml:2: [users.bob] password: the extra [htpasswd] is not installed ("),
        ("[users.bob]\ndisabled = true", 0, ""),
    ):
        (tmp_path / "socks.toml").write_text(text)
        code = "import sys; sys.modules['passlib'] = None; from socksproxy.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "check", "socks.toml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr
        assert done.stderr.startswith(told)


@given(
    st.sampled_from(["users", "groups"]),
    st.dictionaries(st.sampled_from([*USER_KEYS]), values.filter(without_surrogates)),
)
def test_any_user(kind: str, user: dict[str, Any]) -> None:
    """Of whatever stands in a record something is made, or the operator reads lines of it."""
    lines = [f"{key} = {toml(value)}" for key, value in user.items()]
    for line in mistakes("\n".join([f"[{kind}.bob]", *lines])):
        assert line.startswith("file:")
        assert line.isprintable()


# In a proxy.


def test_serves(shouter: int, tmp_path: Path, twistd: Callable[..., Program]) -> None:
    """Who shows the password of a record is in its groups; the log says why others are refused."""
    config = tmp_path / "socks.toml"
    config.write_text(
        f"""
        [log]
        log = "{tmp_path}/access.log"
        log-format = "json"
        [users.bob]
        password = "{HASH}"
        groups = ["staff"]
        [users.eve]
        password = "{HASH}"
        disabled = true
        [users.old]
        password = "{HASH}"
        expires = 2020-01-01
        [groups.staff]
        [[rule]]
        name = "staff"
        allow = true
        groups = ["staff"]
        networks = ["127.0.0.1"]
        """
    )
    path = tmp_path / "socks"
    program = twistd("socks", "--config", str(config), "--listen", f"unix:{path}")
    for name, answer in ((b"bob", 0), (b"eve", 1), (b"old", 1)):
        with connected(path, program) as client:
            client.sendall(b"\x05\x01\x02")
            assert client.recv(2) == b"\x05\x02"
            client.sendall(b"\x01\x03" + name + b"\x06secret")
            assert client.recv(2)[1] == answer
            if answer == 0:
                client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + shouter.to_bytes(2, "big"))
                assert client.recv(10)[1] == 0
    program.wait_for('user "eve": the user is disabled')
    program.wait_for('user "old": the user has expired, 2020-01-02 00:00')
    program.stop()
    records = [json.loads(line) for line in (tmp_path / "access.log").read_text("utf-8").splitlines()]
    assert [record["rule"] for record in records if record["user"] == "bob"] == ["staff"]
