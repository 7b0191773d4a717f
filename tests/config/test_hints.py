"""What the report says of mistakes that are made often: where the other one is, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from socksproxy.cli import main
from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.matching import Matcher, RuleQuestion
from socksproxy.policy.rules import Rule
from socksproxy.policy.sets import NamesFile, NetworksFile, Sets
from socksproxy.values.amounts import byte_rate, size
from socksproxy.values.errors import ConfigError
from socksproxy.wire.words import Address, Command

from ..support.mistakes import mistakes

QUOTES = "a name with other characters than letters, digits, - and _ stands in quotes"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            "[users.bob]\ndisabled = true\n\n[users.eve]\n[users.bob]\n",
            ["file:5:11: cannot declare [users.bob] twice: it is on line 1 already"],
        ),
        (
            '[users."b c"]\n[users.eve]\n[users."b c"]\n',
            ['file:3:13: cannot declare [users."b c"] twice: it is on line 1 already'],
        ),
        ("[log]\n[udp]\n[log]\n", ["file:3:5: cannot declare [log] twice: it is on line 1 already"]),
        (
            "[udp]\nudp-port = 1\n\nudp-port = 2\n",
            ["file:4:13: cannot overwrite a value: udp-port is on line 2 already"],
        ),
        (
            "[[rule]]\nname = 'a'\n[[rule]]\nname = 'b'\nallow = true\nports = [\n1]\nports = [\n2]\n",
            ["file:9:3: cannot overwrite a value: ports is on line 6 already"],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = true\n[[rule]]\nname = 'a'\nallow = true\n",
            ['file:5: [[rule]] "a" name = "a": another name: the rule number 1 has this one'],
        ),
    ],
)
def test_twice(data: str, expected: list[str]) -> None:
    """Both lines are told of what is there twice."""
    assert mistakes(data) == expected


@pytest.mark.parametrize(
    ("header", "right"),
    [
        ("[users.bob@x.org]", '[users."bob@x.org"]'),
        ("  [ users.bob@x.org ] # the boss", '[users."bob@x.org"]'),
        ("[users.DOMAIN\\user]", '[users."DOMAIN\\\\user"]'),
        ("[users.J Doe]", '[users."J Doe"]'),
        ("[users.m\u00fcller]", '[users."m\u00fcller"]'),
        ("[groups.a+b]", '[groups."a+b"]'),
    ],
)
def test_quotes(header: str, right: str) -> None:
    """A name that TOML cannot read is told as it has to be written."""
    (line,) = mistakes(f"{header}\ndisabled = true\n")
    assert line.startswith("file:1:")
    assert line.endswith(f"; {QUOTES}: {right}")
    assert mistakes(f"{right}\ndisabled = true\n") == []


@pytest.mark.parametrize(
    ("pair", "right"),
    [("bob@x.org = {}", '"bob@x.org" ='), ("J Doe={}", '"J Doe" ='), ("m\u00fcller = {}", '"m\u00fcller" =')],
)
def test_quotes_of_keys(pair: str, right: str) -> None:
    """So is a key."""
    (line,) = mistakes(f"[users]\n{pair}\n")
    assert line.startswith("file:2:")
    assert line.endswith(f"; {QUOTES}: {right}")


@pytest.mark.parametrize("header", ["[users.bob", "[log.a@b]", "[users.bob]]", "a = [1", "a.b = ", "port 5"])
def test_no_quotes(header: str) -> None:
    """Other mistakes are not taken for this one."""
    (line,) = mistakes(header)
    assert "quotes" not in line


def test_names_with_dots() -> None:
    """A dot divides a name that is not in quotes."""
    assert mistakes("[users.bob.smith]\ndisabled = true\n[users.a.b.c.limits]\nsessions = 1\n") == [
        'file:1: [users.bob] smith: a name with a dot stands in quotes: [users."bob.smith"]',
        'file:3: [users.a] b: a name with a dot stands in quotes: [users."a.b.c"]',
    ]
    assert mistakes("[users.bob.limits]\nsessions = 1\n") == []


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
        '[users.bob]\noutgoing = ["a", "127.0.0.1", "::1%lo", "127.0.0.2"]\n'
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


# Words for listeners.

LISTENERS = """[listeners]
listen = ["front=tcp:1080:interface=192.0.2.1", "any=tcp:1081", "unix:/run/s:mode=660",
  "tcp6:1082:interface=2001\\\\:db8\\\\:\\\\:1"]
[authentication]
auth = ["anonymous"]
"""
RIGHT = "must be a listener's name, an address and a port as in 192.0.2.1:1080, or unix: and a path"
THERE = (
    "there is no such listener; there are 192.0.2.1:1080, 0.0.0.0:1081, unix:/run/s and [2001:db8::1]:1082"
)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("front", None),
        ("192.0.2.1:1080", None),
        ("198.51.100.7:1081", None),
        ("[2001:db8::1]:1082", None),
        ("unix", None),
        ("unix:/run/s", None),
        ("frnot", "there is no such listener; did you mean front?"),
        ("192.0.2.1", "the port is missing, as in 192.0.2.1:1080"),
        ("2001:db8::1", "the port is missing, as in [2001:db8::1]:1080"),
        ("192.0.2.1:1081x", RIGHT),
        ("tcp:1080", RIGHT),
        (":1080", RIGHT),
        ("*:1080", RIGHT),
        ("localhost:1080", RIGHT),
        ("192.0.2.1:70000", RIGHT),
        ("192.0.2.1:1082", THERE),
        ("192.0.2.2:1080", THERE),
        ("unix:/run/t", THERE),
        ("[2001:DB8:0::1]:1082", "must be written [2001:db8::1]:1082"),
        ("[::ffff:192.0.2.1]:1080", "must be written 192.0.2.1:1080"),
        ("192.0.2.1:01080", "must be written 192.0.2.1:1080"),
        (
            "0.0.0.0:1081",
            'no client reaches this address; a name stands for all: "front" for listen = ["front=tcp:1080"]',
        ),
    ],
)
def test_words_for_listeners(word: str, problem: str | None) -> None:
    """A word by which no client comes is told, with what would be right."""
    found = mistakes(f'{LISTENERS}[[rule]]\nname = "a"\nallow = true\nlisteners = ["front", "{word}"]')
    expected = [] if problem is None else [f'file:9: [[rule]] "a" listeners[1] = "{word}": {problem}']
    assert found == expected


@pytest.mark.parametrize(
    "listeners",
    [
        "",
        '[listeners]\nlisten = ["haproxy:tcp:1080:interface=127.0.0.1"]\n',
        '[listeners]\nlisten = ["systemd:domain=INET:name=socks"]\n',
        '[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n',
    ],
)
def test_listeners_that_are_not_known(listeners: str) -> None:
    """Where nothing is said of the listeners, or what they are shows later, words cannot be judged."""
    rule = '[[rule]]\nname = "a"\nallow = true\nlisteners = ["192.0.2.9:99", "unix", "unix:/run/t"]'
    assert mistakes(listeners + rule) == []


def test_words_for_the_only_listener() -> None:
    """Interface and port are a listener, too."""
    rule = '[[rule]]\nname = "a"\nallow = true\nlisteners = ["127.0.0.1:1081", "unix"]'
    (line,) = mistakes(f"[listeners]\nport = 1081\n{rule}")
    assert line.endswith('"unix": there is no Unix socket among the listeners')


# Warnings.

PATTERN = "no pattern: only a user of exactly this name is meant; groups stand for several users"
HOST = "a host of this name is meant"
NETWORKS = "the set of networks of this name stands in networks"
STREAMS = "the access log goes to a file, /dev/stdout or /dev/stderr"
FILE = "a file of this name is written"


def check(path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of standard error on a file without mistakes."""
    path.write_text(data, "utf-8")
    assert main(["check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: no mistakes\n"
    return [line.replace(str(path), "file") for line in err.splitlines()]


def rules(*lines: str) -> str:
    """A rule for each of *lines*, named a, b and so on."""
    return "\n".join(
        f'[[rule]]\nname = "{name}"\nallow = true\n{line}'
        for name, line in zip("abcdef", lines, strict=False)
    )


@pytest.mark.parametrize(
    ("data", "warnings"),
    [
        (
            rules('users = ["bob"]', "log = false", "ports = [80]", "", 'days = ["mon"]'),
            [
                f'file:{line}: [[rule]] "{name}": never decides: the rule "b" before it matches everything'
                for line, name in ((9, "c"), (13, "d"), (17, "e"))
            ],
        ),
        (
            rules(
                'networks = ["::/0", "0.0.0.0/0"]\nversions = [4, 5]\ndays = ["sun-sat"]\nzone = "UTC"', ""
            ),
            ['file:8: [[rule]] "b": never decides: the rule "a" before it matches everything'],
        ),
        (
            rules('ports = [80, "443"]\nusers = ["bob"]', 'users = ["bob"]\nports = [443, 80]'),
            ['file:6: [[rule]] "b": never decides: the rule "a" before it has the same conditions'],
        ),
        (rules('networks = ["0.0.0.0/0"]', 'hours = ["08:00-18:00"]', "authenticated = true", ""), []),
        (
            rules('users = ["bob", "mgr_*"]', 'users = ["j?"]'),
            [
                f'file:{line}: [[rule]] "{rule}" users[{number}] = "{user}": {PATTERN}'
                for line, rule, number, user in ((4, "a", 1, "mgr_*"), (8, "b", 0, "j?"))
            ],
        ),
        (rules('users = ["mgr_*"]') + '\n[users."mgr_*"]\n', []),
        (
            rules('names = ["a.example", "my_list"]', 'names = ["private"]', 'names = ["@my_list"]')
            + '\n[sets.my_list]\nnames = ["b.example"]\n',
            [
                f'file:4: [[rule]] "a" names[1] = "my_list": {HOST}; the set is "@my_list"',
                f'file:8: [[rule]] "b" names[0] = "private": {HOST}; {NETWORKS}',
            ],
        ),
        (
            '[log]\nlog = "syslog"',
            [f'file:2: [log] log = "syslog": {FILE}: {STREAMS}'],
        ),
        (
            '[log]\nlog = "stdout"',
            [f'file:2: [log] log = "stdout": {FILE}; /dev/stdout is the stream'],
        ),
        ('[log]\nlog = "access.log"', []),
    ],
)
def test_warnings(
    data: str,
    warnings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is hardly meant is told, and the file is right all the same."""
    monkeypatch.chdir(tmp_path)
    assert check(tmp_path / "socks.toml", data, capsys) == [f"warning: {line}" for line in warnings]


def test_set_with_a_mark() -> None:
    """A set of networks has none."""
    (line,) = mistakes(rules('networks = ["@servers"]') + '\n[sets.servers]\nnetworks = ["10.0.0.0/8"]')
    assert line.endswith('networks[0] = "@servers": a set of networks stands without @')
