"""Sets in a configuration file, and the files that they name."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from socksproxy import Client
from socksproxy.cli import main
from socksproxy.config.file import read
from socksproxy.config.sets import SET_KEYS
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.sets import SetFile, Sets
from socksproxy.wire.words import Address, Command

from ..support.mistakes import elsewhere, mistakes

__all__ = ["elsewhere"]

RULES = """
[[rule]]
name = "bad"
allow = false
networks = ["bad"]
names = ["@bad"]
[[rule]]
name = "rest"
allow = true
"""


@pytest.fixture(autouse=True)
def files(elsewhere: None) -> None:
    """Some good, some not."""
    for name, text in {
        "one": "192.0.2.0/28\n198.51.100.1-198.51.100.9 # some\n",
        "two": "2001:db8::/32\n",
        "names": "*.ads.example\nads.example\n",
        "hosts": "0.0.0.0 a.example b.example\n",
        "wrong": "192.0.2.1\n\n192.0.2.300\n",
        "wrong-names": "# a.example\n-..example\n",
        "empty": "",
    }.items():
        Path(name).write_text(text)


def policy_of(sets: str, directory: str = "") -> RulePolicy:
    configured = read((sets + RULES).encode(), "file", directory)
    assert configured.report([]) == []
    assert configured.policy is not None
    return configured.policy


def sets_of(sets: str) -> Sets:
    return policy_of(f"[sets.bad]\n{sets}\n").sets


def holds(sets: Sets, text: str) -> bool:
    """Whether the set has the address or the name *text*."""
    content = sets.names["bad"] if text.endswith(".example") else sets.networks["bad"]
    if text.endswith(".example"):
        assert not isinstance(content, tuple)
        return content.holds(text)  # type: ignore[union-attr]
    address = ip_address(text)
    return content.range_of(int(address), address.version == 6) is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        'networks-file = "one"\nnames-file = "names"',
        'networks_file = "one"\nnames_file = "names"',
        'networks-file = ["one"]\nnames-file = ["names"]',
        'networks-file = "one"\nnames-file = "names"\nnetworks = []\nnames = []',
    ],
)
def test_one_file(text: str) -> None:
    """Its name, or a list of it; in both spellings."""
    sets = sets_of(text)
    for there in ("192.0.2.15", "198.51.100.5", "ads.example", "x.ads.example"):
        assert holds(sets, there)
    for not_there in ("192.0.2.16", "198.51.100.10", "2001:db8::1", "::c000:20f", "a.example"):
        assert not holds(sets, not_there)
    assert sorted(os.path.basename(file.path) for file in sets.files) == ["names", "one"]


def test_together() -> None:
    """Several files and what stands in the table itself are one set."""
    sets = sets_of(
        'networks-file = ["one", "two"]\nnetworks_file = "one"\nnetworks = ["203.0.113.1", "2001:db9::/32"]\n'
        'names-file = ["names", "hosts"]\nnames = ["c.example", "*.d.example", "e*.example"]'
    )
    for there in (
        *("192.0.2.15", "198.51.100.5", "2001:db8::1", "203.0.113.1", "2001:db9::1"),
        *("ads.example", "x.ads.example", "b.example", "c.example", "x.d.example", "ex.example"),
    ):
        assert holds(sets, there), there
    for not_there in ("192.0.2.16", "203.0.113.2", "2001:dba::1", "x.b.example", "d.example", "xe.example"):
        assert not holds(sets, not_there), not_there
    # Each is loaded once.
    assert sorted(os.path.basename(file.path) for file in sets.files) == ["hosts", "names", "one", "two"]


def test_shared() -> None:
    """A file in two sets is read once and looked at once."""
    sets = policy_of(
        '[sets.bad]\nnetworks-file = "one"\nnames-file = "names"\n[sets.b]\nnetworks-file = "one"\n'
    ).sets
    assert sets.networks["bad"] is sets.networks["b"]
    assert len(sets.files) == 2
    assert all(isinstance(file, SetFile) for file in sets.files)


def test_decides() -> None:
    """Rules go by what the files say, and by what they say later."""
    policy = policy_of(
        '[sets.bad]\nnetworks-file = ["two"]\nnetworks = ["192.0.2.7"]\nnames-file = "names"\n'
    )

    def rule(host: str) -> str:
        return policy.decide(Client("192.0.2.1", 5), Command.CONNECT, Address.of(host, 80)).rule

    assert [
        rule(host) for host in ("192.0.2.7", "192.0.2.8", "2001:db8::1", "x.ads.example", "b.example")
    ] == [
        *("bad", "rest", "bad", "bad", "rest"),
    ]
    Path("two").write_text("2001:db7::/32\n")
    (file,) = (file for file in policy.sets.files if file.path.endswith("two"))
    file.load()
    assert [rule(host) for host in ("192.0.2.7", "2001:db8::1", "2001:db7::1")] == ["bad", "rest", "bad"]


def test_check_tells_entries_that_can_never_match(capsys: pytest.CaptureFixture[str]) -> None:
    """They are warnings: the rest of the file counts."""
    Path("ads").write_text("a.example\n192.0.2.1\nb..example\n")
    Path("file").write_text(f'[sets.bad]\nnetworks = []\nnames-file = "ads"\n{RULES}')
    assert main(["check", "file"]) == 0
    out, err = capsys.readouterr()
    assert out == "file: no mistakes\n"
    begin = f"warning: an entry of a file does not count: {os.path.abspath('ads')}, line "
    assert err.splitlines() == [
        f"{begin}2: '192.0.2.1': is an address, which belongs into networks",
        f"{begin}3: 'b..example': is no name that the DNS allows",
    ]


def test_directory(tmp_path: Path) -> None:
    """Names of files are relative to where the proxy was started, wherever it is now."""
    (tmp_path / "ours").write_text("192.0.2.1\n")
    policy = policy_of('[sets.bad]\nnetworks-file = "ours"\nnames = []\n', str(tmp_path))
    assert [file.path for file in policy.sets.files] == [str(tmp_path / "ours")]


def test_special_by_the_smallest() -> None:
    """A special address that the table names stays named, whatever wider range a file has around it."""
    Path("wide").write_text("0.0.0.0/0\n")
    sets = sets_of('networks-file = "wide"\nnetworks = ["127.0.0.1", "127.0.0.0/9"]\nnames = []')
    loopback = int(ip_address("127.0.0.1"))
    assert sets.networks["bad"].range_of(loopback, False) == (loopback, loopback)  # type: ignore[union-attr]


@pytest.mark.parametrize("key", SET_KEYS)
def test_examples(key: str) -> None:
    """The examples of the documentation are right."""
    Path("bad.txt").write_text("192.0.2.1\n")
    Path("ads.txt").write_text("a.example\n")
    assert mistakes(f"[sets.a]\n{key} = {SET_KEYS[key].example.replace('/etc/socks/', '')}") == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            '[sets.a]\nnetworks-file = ["one", "nowhere", "wrong", 5]\nnames-file = "wrong-names"',
            [
                'file:2: [sets.a] networks-file[1] = "nowhere": no such file or directory',
                (
                    "file:2: [sets.a] networks-file[2] = \"wrong\": line 3: '192.0.2.300': "
                    "must be an address or a network such as 192.0.2.0/24"
                ),
                "file:2: [sets.a] networks-file[3] = 5: not text in quotes",
                (
                    "file:3: [sets.a] names-file = \"wrong-names\": line 2: '-..example': "
                    "is no name that the DNS allows; no entry of the file counts"
                ),
            ],
        ),
        (
            '[sets.a]\nnetworks_file = "."\nnames_file = "empty"',
            [
                'file:2: [sets.a] networks_file = ".": is a directory',
                'file:3: [sets.a] names_file = "empty": is empty; for an empty set, write a comment',
            ],
        ),
        (
            '[sets.a]\nnetworks-files = "one"\nnames-file = []\nnetworks-file = true',
            [
                "file:2: [sets.a] networks-files: no such key; did you mean networks-file?",
                "file:3: [sets.a] names-file = []: not the name of a file, nor a list of some",
                "file:4: [sets.a] networks-file = true: not the name of a file, nor a list of some",
            ],
        ),
        (
            '[sets.a]\nnetworks-file = "a\\u0000b"\nnames-file = "/dev/null"',
            [
                'file:2: [sets.a] networks-file = "a\\u0000b": not a path',
                'file:3: [sets.a] names-file = "/dev/null": is not a regular file',
            ],
        ),
        (
            '[sets.A]\nnetworks-file = "one"\n[sets.loopback]\nnetworks-file = "one"\n[sets.b]',
            [
                "file:1: [sets.A]: must be a word in lower case, and none of ",
                "file:3: [sets.loopback]: must be a word in lower case, and none of ",
                (
                    "file:5: [sets.b]: there must be networks, names, hosts, networks-file and names-file, "
                    "or one of them"
                ),
            ],
        ),
        (
            '[sets.a]\nhosts = ["home.example", "*.example", 5]\n[sets.b]\nhosts = "home.example"',
            [
                'file:2: [sets.a] hosts[1] = "*.example": must be the name of one host',
                "file:2: [sets.a] hosts[2] = 5: must be the name of one host",
                'file:4: [sets.b] hosts = "home.example": not a list in brackets',
            ],
        ),
        (
            '[sets.a]\nhosts = ["home.example"]\n[[rule]]\nname = "a"\nallow = true\nnetworks = ["a"]',
            ['file:6: [[rule]] "a" networks[0] = "a": has hosts, which are for clients'],
        ),
        (
            '[sets.a]\nnetworks = ["10.0.0.0/8", "10.1.0.0/8"]\nnetworks-file = "one"',
            [
                (
                    'file:2: [sets.a] networks[1] = "10.1.0.0/8": has bits set behind its prefix: '
                    "10.0.0.0/8 or 10.1.0.0"
                )
            ],
        ),
    ],
)
def test_mistakes(config: str, expected: list[str]) -> None:
    """Those in the files too, with their lines, in one go with all others."""
    found = mistakes(config)
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_fifo() -> None:
    """It is not waited for who writes to it."""
    os.mkfifo("fifo")
    assert mistakes('[sets.a]\nnames-file = "fifo"') == [
        'file:2: [sets.a] names-file = "fifo": is not a regular file'
    ]


def test_check_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """Both load them."""
    text = '[sets.bad]\nnetworks-file = "one"\nnames-file = "names"\n' + RULES
    Path("socks.toml").write_text(text)
    assert main(["check", "socks.toml"]) == 0
    assert main(["explain", "socks.toml", "connect", "192.0.2.3:80"]) == 0
    assert "denied (by rule bad)" in capsys.readouterr().out
    Path("socks.toml").write_text(text.replace('"one"', '"wrong"'))
    for command in (["check", "socks.toml"], ["explain", "socks.toml", "connect", "192.0.2.3:80"]):
        assert main(command) == 1
        assert 'socks.toml:2: [sets.bad] networks-file = "wrong": line 3: ' in capsys.readouterr().err
