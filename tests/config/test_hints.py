"""What the report says of mistakes that are made often: where the other one is, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.matching import Matcher, RuleQuestion
from socksproxy.policy.rules import Rule
from socksproxy.policy.sets import NamesFile, NetworksFile, Sets
from socksproxy.values.amounts import byte_rate, size
from socksproxy.values.errors import ConfigError
from socksproxy.wire.words import Address, Command

from ..support.mistakes import mistakes


@pytest.mark.parametrize("header", ["[rules]", "[[rules]]"])
def test_rules(header: str) -> None:
    """The name of a rule's table stands in double brackets."""
    assert mistakes(f"{header}\nname = 'a'\n") == ["file:1: [rules]: no such table; did you mean [[rule]]?"]


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("ports", '["http", 70000, 80, "http", 1.5]', [0, 1, 3, 4]),
        ("users", '["", "bob", 5]', [0, 2]),
        ("commands", '["conect", "bind", 5, ["bind"]]', [0, 2, 3]),
        ("versions", "[4, 6, 5.0]", [1, 2]),
        ("networks", '["10.0.0.1/8", 5, "::1", "1.2.3"]', [0, 1, 3]),
        ("clients", '["10.0.0.1/8", "private", "1.2.3"]', [0, 2]),
        ("names", '["a.example", "192.0.2.1", "a b", "..a"]', [1, 2, 3]),
        ("days", '["mon", "funday", "sat-mon", 5]', [1, 3]),
        ("hours", '["8", "08:00-18:00", "25:00-26:00"]', [0, 2]),
        ("listeners", '["", 5]', [0, 1]),
        ("outgoing", '["a", "127.0.0.1", "b"]', [0, 2]),
    ],
)
def test_lists_of_rules(key: str, value: str, wrong: list[int]) -> None:
    """Each entry that is wrong is told."""
    found = mistakes(f'[[rule]]\nname = "web"\nallow = true\n{key} = {value}')
    assert len(found) == len(wrong)
    for line, number in zip(found, wrong, strict=True):
        assert line.startswith(f'file:4: [[rule]] "web" {key}[{number}] = ')


def test_lists_of_sets_and_users() -> None:
    """So it is elsewhere."""
    found = mistakes(
        '[sets.a]\nnetworks = ["1.2.3", "10.0.0.0/8", "1.2.3"]\nnames = ["a b", 5]\n'
        '[users.bob]\noutgoing = ["a", "127.0.0.1", "::1%lo", "127.0.0.1"]\n'
    )
    assert [line.partition(" = ")[0].partition("] ")[2] for line in found] == [
        *("networks[0]", "networks[2]", "names[0]", "names[1]"),
        *("outgoing[0]", "outgoing[2]", "outgoing[3]"),
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2mbit", '"2 Mbit/s" is "250 kB/s"'),
        ("2 mbit/s", '"2 Mbit/s" is "250 kB/s"'),
        ("100Mbps", '"100 Mbit/s" is "12.5 MB/s"'),
        ("512 kbps", '"512 kbit/s" is "64 kB/s"'),
        ("1.5 MBits", '"1.5 Mbit/s" is "187.5 kB/s"'),
        ("1 Tbit/s", 'in bytes that is "125 GB/s"'),
        ("8 Mibit/s", 'in bytes that is "1048.576 kB/s"'),
        (
            "10 Mb/s",
            'if b stands for bits, "10 Mbit/s" is "1.25 MB/s"; if it stands for bytes, write "10 MB/s"',
        ),
        (
            "10 mb",
            'if b stands for bits, "10 Mbit/s" is "1.25 MB/s"; if it stands for bytes, write "10 MB/s"',
        ),
        ("5 KB/s", "did you mean kB/s?"),
        ("5 MBps", "did you mean MB/s?"),
        ("5 mbytes/sec", "did you mean MB/s?"),
        ("5 MIB/s", "did you mean MiB/s?"),
    ],
)
def test_units_of_rates(text: str, meant: str) -> None:
    """A bit is not a byte: the number is told in the unit that there is."""
    with pytest.raises(ConfigError) as caught:
        byte_rate(text)
    assert caught.value.reason == f"no such unit; {meant}"
    for told in meant.split('"')[1::2]:
        assert byte_rate(told) > 0
    if " is " in meant and meant.startswith('"'):
        bits, _, bytes_ = meant.split('"')[1:4]
        assert byte_rate(bits) == byte_rate(bytes_)


def test_units_of_sizes() -> None:
    """An amount is in bytes."""
    with pytest.raises(ConfigError, match='if b stands for bits, in bytes that is "625 MB"'):
        size("5 Gb")
    with pytest.raises(ConfigError, match='no such unit; in bytes that is "625 MB"'):
        size("5 Gbit")


# The same words mean the same in lists and in files.

RANGES = ["192.0.2.1-192.0.2.9", " 192.0.2.20 - 192.0.2.21 ", "2001:db8::1-2001:db8::5", " 198.51.100.0/24"]


def test_ranges_of_addresses(tmp_path: Path) -> None:
    """A rule, a list of a set, and a file have the same addresses."""
    path = tmp_path / "networks.txt"
    path.write_text("\n".join(RANGES))
    file = NetworksFile(str(path))
    file.load()
    sets = Sets(networks={"listed": RANGES, "filed": file, "both": [file, *RANGES]})
    rule = Rule(name="a", allow=True, networks=RANGES, clients=RANGES)
    policies = [
        RulePolicy([Rule(name="a", allow=True, networks=[name])], sets)
        for name in ("listed", "filed", "both")
    ]
    policies.append(RulePolicy([rule]))
    for host, there in (
        *(("192.0.2.1", True), ("192.0.2.9", True), ("192.0.2.10", False), ("192.0.2.20", True)),
        *(("2001:db8::3", True), ("2001:db8::6", False), ("198.51.100.77", True)),
    ):
        for policy in policies:
            client = Client("192.0.2.1")
            assert policy.permits(client, Command.CONNECT, Address.of(host, 80)) is there
        assert (
            Matcher([rule])
            .decide(RuleQuestion(Client("192.0.2.1"), Command.CONNECT, host, 80, None), 0.0)
            .allowed
            is there
        )


def test_range_around_a_special_address() -> None:
    """A range that goes beyond special addresses does not name them, though a part of it would."""
    client = Client("192.0.2.1")
    for text, named in (("127.0.0.1-127.0.0.9", True), ("126.0.0.0-127.255.255.255", False)):
        policy = RulePolicy([Rule(name="a", allow=True, networks=[text])])
        assert policy.permits(client, Command.CONNECT, Address.of("127.0.0.1", 80)) is named


def test_leading_dots(tmp_path: Path) -> None:
    """``.a.example`` is the name and all that end so, wherever it stands."""
    path = tmp_path / "names.txt"
    path.write_text(".a.example\n")
    file = NamesFile(str(path))
    file.load()
    sets = Sets(names={"listed": [" .a.example"], "filed": file, "both": [file, ".A.example"]})
    patterns = (["@listed"], ["@filed"], ["@both"], [".A.Example"])
    for names in patterns:
        policy = RulePolicy([Rule(name="a", allow=True, names=names)], sets)
        for host, there in (("a.example", True), ("b.a.example", True), ("ba.example", False)):
            assert policy.permits(Client("192.0.2.1"), Command.CONNECT, Address.of(host, 80)) is there


def test_ranges_of_ports() -> None:
    """Spaces make no difference."""
    rule = Rule(name="a", allow=True, ports=["8000-8010", " 80 - 90 ", " 443"])
    assert rule.ports == ((8000, 8010), (80, 90), (443, 443))
    assert mistakes('[bind]\nbind-ports = " 40000 - 40999 "\n') == []


# What only this machine can tell.


def test_outgoing_of_users_and_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at as the server's own are."""
    monkeypatch.setattr("socksproxy.config.command_line.is_local", lambda host: host in ("127.0.0.1", "::1"))
    found = mistakes(
        '[outgoing]\noutgoing = ["192.0.2.1"]\n'
        '[users.bob]\noutgoing = ["192.0.2.2", "::1"]\n'
        '[groups.staff]\noutgoing = ["192.0.2.3"]\n'
        '[[rule]]\nname = "a"\nallow = true\noutgoing = ["127.0.0.1", "2001:db8::1"]\n'
    )
    reason = "not an address of this machine"
    assert found == [
        f'file:2: [outgoing] outgoing[0] = "192.0.2.1": {reason}',
        f'file:4: [users.bob] outgoing[0] = "192.0.2.2": {reason}',
        f'file:6: [groups.staff] outgoing[0] = "192.0.2.3": {reason}',
        f'file:10: [[rule]] "a" outgoing[1] = "2001:db8::1": {reason}',
    ]


@pytest.mark.parametrize(
    "value", ['"::1"', "5", '["a.example", 5, "192.0.2.1%1"]', "[]", '["127.0.0.1", []]']
)
@pytest.mark.parametrize("table", ["[users.bob]", "[groups.staff]", "[[rule]]\nname = 'a'\nallow = true"])
def test_outgoing_that_is_wrong_already(table: str, value: str) -> None:
    """An entry with a mistake is told once."""
    found = mistakes(f"{table}\noutgoing = {value}")
    assert found
    assert not any("of this machine" in line and "literal" not in line for line in found)
    assert len(found) == len({line.partition(" = ")[0] for line in found})
