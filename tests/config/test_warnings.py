"""What is no mistake, and hardly meant: see :mod:`socksproxy.config.warnings`."""

from __future__ import annotations

from pathlib import Path

import pytest

from socksproxy.cli import main

from ..support.mistakes import mistakes

PATTERN = "no pattern: only a user of exactly this name is meant; patterns stand in user-patterns"


HOST = "a host of this name is meant"


NETWORKS = "the set of networks of this name stands in networks"


STREAMS = "; a log may go to a file, journald, syslog, /dev/stdout or /dev/stderr"

NO_SOCKET = "there is no such socket now: lines are lost until there is"


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
            '[log]\nlog = "console"',
            [f'file:2: [log] log = "console": {FILE}{STREAMS}'],
        ),
        (
            '[log]\nlog = "syslog:/nowhere/log"\nserver-log = "journald:/nowhere/journal"',
            [
                f'file:2: [log] log = "syslog:/nowhere/log": {NO_SOCKET}',
                f'file:3: [log] server-log = "journald:/nowhere/journal": {NO_SOCKET}',
            ],
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


CLAIMABLE = "who reaches it can claim any address: name the balancers with --proxy-from"


@pytest.mark.parametrize(
    ("listen", "also", "warned"),
    [
        ("haproxy:tcp:1080:interface=192.0.2.1", "", True),
        ("haproxy:tcp:1080", "", True),
        ("haproxy:tcp:1080", 'proxy-from = ["192.0.2.9"]', False),
        ("haproxy:tcp:1080:interface=127.0.0.1", "", False),
        ("haproxy:unix:/nonexistent/socks", "", False),
        ("tcp:1080", "", False),
    ],
)
def test_claimed_addresses(
    listen: str, also: str, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who can send a PROXY header can be anybody: where that may be a stranger, the operator is warned."""
    data = f'[listeners]\nlisten = ["{listen}"]\nopen = true\n{also}\n'
    expected = [f"warning: {listen}: {CLAIMABLE}"] if warned else []
    assert check(tmp_path / "socks.toml", data, capsys) == expected


@pytest.mark.parametrize(
    ("listen", "also", "told"),
    [
        (
            "haproxy:tcp:1:interface=127.0.0.1",
            'proxy-from = ["10.0.0.0/8", "10.0.0.1/8", "lb.example"]',
            [
                f"file:3: [listeners] proxy-from[{number}] = {value}: "
                "not an address or a network such as 10.0.0.0/8"
                for number, value in ((1, '"10.0.0.1/8"'), (2, '"lb.example"'))
            ],
        ),
        (
            "tcp:1:interface=127.0.0.1",
            'proxy-from = ["10.0.0.0/8"]',
            [
                (
                    'file:3: [listeners] proxy-from = ["10.0.0.0/8"]: needs a listener that expects PROXY '
                    "headers, such as haproxy:tcp:1080"
                )
            ],
        ),
        (
            "tcp:1:interface=127.0.0.1",
            '[authentication]\nauth = ["balancer"]',
            [
                (
                    "file:4: [authentication] auth = (not shown): balancer needs a listener that expects "
                    "PROXY headers, such as haproxy:tcp:1080"
                )
            ],
        ),
        ("haproxy:tcp:1:interface=127.0.0.1", '[authentication]\nauth = ["balancer"]', []),
    ],
)
def test_balancers(listen: str, also: str, told: list[str]) -> None:
    """Each wrong entry is told, and what has no effect."""
    assert mistakes(f'[listeners]\nlisten = ["{listen}"]\n{also}\n') == told
