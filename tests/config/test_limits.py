"""Limits in a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from hypothesis import given, strategies as st

from socksproxy.config.file import Configured, read
from socksproxy.config.limits import LIMIT_KEYS, PREFIX_KEYS
from socksproxy.config.options import SCOPES
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.policy.rules import RuleTimeouts
from socksproxy.values.timeouts import NEVER

from ..support.mistakes import elsewhere, mistakes, toml, values, without_surrogates

__all__ = ["elsewhere"]

RULE = '[[rule]]\nname = "web"\nallow = true\n'
FILE = '[limits]\nquota-file = "usage.sqlite"\n'
NOT_OF_SESSIONS = "not of a single session, which has upload and download only"
NO_FILE = "needs quota-file in [limits], where what has been used is kept"


def configured(text: str) -> Configured:
    found = read(text.encode(), "file")
    assert found.report([]) == []
    return found


def test_all() -> None:
    """Each table's values are what they say."""
    found = configured(
        """
        [limits]
        max-sessions = 7
        quota-file = "usage.sqlite"
        time-zone = "Pacific/Chatham"
        [limits.server]
        sessions = 100
        binds = 8
        associations = 20
        new-sessions = "10/s"
        upload = "1 MB/s"
        download = { rate = "8 Mbit/s", burst = "4 MB" }
        daily = "5 GB"
        monthly = 100000
        [limits.network]
        ipv4-prefix = 24
        ipv6-prefix = 48
        sessions = 5
        [limits.user]
        new-sessions = { rate = 1, burst = 5 }
        [limits.session]
        upload = 1000
        """
    )
    assert found.limits == ServerLimits(
        server=Limits(
            sessions=100,
            binds=8,
            associations=20,
            new_sessions=Rate(10),
            upload=Rate(1e6),
            download=Rate(1e6, 4_000_000),
            daily=5_000_000_000,
            monthly=100_000,
        ),
        network=Limits(sessions=5),
        user=Limits(new_sessions=Rate(1, 5)),
        session=Limits(upload=Rate(1000)),
        ipv4_prefix=24,
        ipv6_prefix=48,
    )
    assert found.quota_file == "usage.sqlite"
    assert str(found.time_zone) == "Pacific/Chatham"
    assert found.said == {"max-sessions": "7"}


def test_nothing() -> None:
    """What is not said limits nothing."""
    assert configured("").limits == ServerLimits()
    assert configured("").quota_file is None
    assert configured("[limits.user]").limits == ServerLimits()


def test_of_a_rule() -> None:
    """As a table in the line, or of its own."""
    for text in (
        'limits = { sessions = 3, download = "1 MB/s" }',
        "[rule.limits]\nsessions = 3\ndownload = 1000000",
    ):
        policy = configured(RULE + text).policy
        assert policy is not None
        assert policy.rules[0].limits == Limits(sessions=3, download=Rate(1e6))


def test_timeouts_of_rules() -> None:
    """What a rule does not say of timeouts is the server's; 0 is for ever."""
    said = [
        "connect-timeout = 5",
        "idle-timeout = 7",
        "idle-timeout = 0",
        "idle-timeout = 1\nconnect-timeout = 2",
        "",
    ]
    policy = configured(
        "".join(f"[[rule]]\nname = 'r{number}'\nallow = true\n{text}\n" for number, text in enumerate(said))
    ).policy
    assert policy is not None
    assert [rule.timeouts for rule in policy.rules] == [
        RuleTimeouts(5, None),
        RuleTimeouts(None, 7),
        RuleTimeouts(None, NEVER),
        RuleTimeouts(2, 1),
        None,
    ]


def test_keys() -> None:
    """A new limit has a key, and what is to be known of it."""
    assert {key.replace("-", "_") for key in LIMIT_KEYS} == {field.name for field in fields(Limits)}
    names = {*SCOPES, *(key.replace("-", "_") for key in PREFIX_KEYS)}
    assert names == {field.name for field in fields(ServerLimits)}


@pytest.mark.parametrize("key", [*LIMIT_KEYS, *PREFIX_KEYS])
def test_examples(key: str) -> None:
    """The examples of the documentation are right."""
    example = (LIMIT_KEYS | PREFIX_KEYS)[key].example
    table = "user" if key == "devices" else "network"
    assert mistakes(f"{FILE}[limits.{table}]\n{key} = {example}") == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            '[limits.server]\nsesions = 5\nupload = "fast"\nbinds = 0',
            [
                "file:2: [limits.server] sesions: no such key; did you mean sessions?",
                'file:3: [limits.server] upload = "fast": not bytes a second such as 1000000 or "1 MB/s"',
                "file:4: [limits.server] binds = 0: not a whole number above 0",
            ],
        ),
        (
            "[limits.client]\nbinds = 8\nupload = 5\nsesions = 1",
            [
                "file:2: [limits.client] binds = 8: max-binds-per-client in [limits] says it",
                "file:4: [limits.client] sesions: no such key; did you mean sessions?",
            ],
        ),
        (
            "[limits.network]\nipv4-prefix = 33\nipv6-prefix = true\nipv4_prefix = 24",
            [
                "file:2: [limits.network] ipv4-prefix = 33: not a whole number from 0 to 32",
                "file:3: [limits.network] ipv6-prefix = true: not a whole number from 0 to 128",
                "file:4: [limits.network] ipv4_prefix: no such key; did you mean ipv4-prefix?",
            ],
        ),
        (
            "[limits.user]\nipv4-prefix = 24",
            [
                (
                    "file:2: [limits.user] ipv4-prefix: no such key; there are sessions, binds, "
                    "associations, devices, new-sessions, upload, download, daily, monthly, "
                    "counts and shared"
                )
            ],
        ),
        (
            f'{FILE}[limits.user]\ncounts = "both"\n',
            ['file:4: [limits.user] counts = "both": neither upload nor download'],
        ),
        (
            "[limits.server]\ndevices = 3\n[limits.session]\ndevices = 3\n[limits.user]\ndevices = 0",
            [
                (
                    "file:2: [limits.server] devices = 3: of users only: [limits.user], limits of users "
                    "and groups, user-limits of rules"
                ),
                (
                    "file:4: [limits.session] devices = 3: not of a single session, which has upload and "
                    "download only"
                ),
                "file:6: [limits.user] devices = 0: not a whole number above 0",
            ],
        ),
        (
            f"{FILE}[limits.session]\nsessions = 5\ndaily = 7\nupload = 5",
            [
                f"file:{line}: [limits.session] {key}: {NOT_OF_SESSIONS}"
                for line, key in ((4, "sessions = 5"), (5, "daily = 7"))
            ],
        ),
        (
            "[limits.user.upload]\nrat = 5\nburst = '1 MB/s'",
            [
                "file:1: [limits.user] upload: rate is missing",
                "file:2: [limits.user] upload.rat: no such key; did you mean rate?",
                'file:3: [limits.user] upload.burst = "1 MB/s": must be an amount, in MB',
            ],
        ),
        (
            "[limits.user]\nnew-sessions = { rate = 5, burst = 1.5 }\nupload = [5]",
            [
                "file:2: [limits.user] new-sessions.burst = 1.5: not a whole number above 0",
                'file:3: [limits.user] upload = [5]: not bytes a second such as 1000000 or "1 MB/s"',
            ],
        ),
        ("limits.user = 5", ["file:1: [limits.user]: not a table: it begins with [limits.user]"]),
        ("[[limits.user]]", ["file:1: [limits.user]: not a table: it begins with [limits.user]"]),
        ("[limits.users]\nsessions = 5", ["file:1: [limits] users: no such key; did you mean user?"]),
        ("[limits.user]\ndaily = 5", [f"file:2: [limits.user] daily = 5: {NO_FILE}"]),
        (
            RULE + 'limits = { monthly = "1 GB", uplod = 5 }',
            [
                f'file:4: [[rule]] "web" limits.monthly = "1 GB": {NO_FILE}',
                'file:4: [[rule]] "web" limits.uplod: no such key; did you mean upload?',
            ],
        ),
        (RULE + "limits = 'slow'", ['file:4: [[rule]] "web" limits = "slow": not a table']),
        (
            RULE + "connect-timeout = 0",
            ['file:4: [[rule]] "web" connect-timeout = 0: not a number of seconds above 0'],
        ),
        # One mistake, from which others would follow.
        (
            '[limits]\nquota-fiel = "a"\n[limits.user]\ndaily = 5',
            ["file:2: [limits] quota-fiel: no such key; did you mean quota-file?"],
        ),
        (
            '[limits]\ntime-zone = "Berlin"',
            [
                (
                    'file:2: [limits] time-zone = "Berlin": must be a time zone that this machine knows, '
                    "such as Europe/Berlin"
                )
            ],
        ),
        (
            "[limits]\nquota-file = 5\n[limits.user]\ndaily = 5",
            ["file:2: [limits] quota-file = 5: not text in quotes"],
        ),
        (
            'quota-file = "a"\n[limits.user]\ndaily = 5',
            ["file:1: quota-file: this key belongs in [limits]"],
        ),
    ],
)
def test_mistakes(config: str, expected: list[str]) -> None:
    """Each names the table, the key, the value and what would be right."""
    assert mistakes(config) == expected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "not a file"),
        (".", "not a file"),
        ("nowhere/usage", "no such file or directory"),
        ("a\\u0000b", "not a path"),
    ],
)
def test_quota_files_that_cannot_be(path: str, reason: str) -> None:
    """What would be found when it is opened is found before, and nothing is made of it."""
    line = f'quota-file = "{path}"'
    assert mistakes(f"[limits]\n{line}") == [f"file:2: [limits] {line}: {reason}"]
    assert mistakes(FILE) == []
    assert not Path("usage.sqlite").exists()


@given(
    st.sampled_from(SCOPES),
    st.dictionaries(st.sampled_from([*LIMIT_KEYS, *PREFIX_KEYS, "rate"]), values.filter(without_surrogates)),
)
def test_any_limits(scope: str, limits: dict[str, Any]) -> None:
    """Of whatever stands in a table something is made, or the operator reads lines of it."""
    lines = [f"{key} = {toml(value)}" for key, value in limits.items()]
    for table in (f"[limits.{scope}]", RULE + "[rule.limits]"):
        for line in mistakes("\n".join([table, *lines])):
            assert line.startswith("file:")
            assert line.isprintable()
