"""The tables ``[helpers.NAME]`` and the key ``ask`` of rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import fields

from socksproxy.cli import main
from socksproxy.config.helpers import HELPER_KEYS
from socksproxy.values.helpers import HelperSettings

from .test_upstreams import parsed, problems

ONE = '[helpers.one]\ncommand = ["/bin/sh", "-c", "true"]\n'
RULE = '[[rule]]\nname = "all"\nallow = true\nnetworks = ["0.0.0.0/0"]\nask = "one"\n'


def test_every_key_is_a_field() -> None:
    assert {key.replace("-", "_") for key in HELPER_KEYS} == {field.name for field in fields(HelperSettings)}


def test_meaning(tmp_path: Path) -> None:
    more = 'children = 2\nconcurrency = 7\ntimeout = 1.5\nttl = 0\nnegative-ttl = 3\nformat = "%un  %DST"\n'
    settings = parsed(f"{ONE}{more}{RULE}", tmp_path).plan.settings
    assert settings.helpers == {
        "one": HelperSettings(
            command=("/bin/sh", "-c", "true"),
            children=2,
            concurrency=7,
            timeout=1.5,
            ttl=0,
            negative_ttl=3,
            format="%un %DST",
        )
    }


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("helpers = 1\n", "file:1: [helpers]: each has a table of its own: it begins with [helpers.NAME]"),
        ("[helpers]\none = 1\n", "file:2: [helpers.one]: not a table: it begins with [helpers.NAME]"),
        ("[helpers.one]\nttl = 5\n", "file:1: [helpers.one]: command is missing"),
        (f"{ONE}colour = 1\n", "file:3: [helpers.one] colour: no such key; there are"),
        (f"{ONE}children = 0\n", "file:3: [helpers.one] children = 0: must be a number from 1 to 256"),
        (f"{ONE}timeout = true\n", "file:3: [helpers.one] timeout = true: not a number"),
        (f'{ONE}format = "%DOG"\n', 'file:3: [helpers.one] format = "%DOG": %DOG is none of %SRC'),
        (f'{ONE}format = "x=%DST"\n', 'file:3: [helpers.one] format = "x=%DST": x=%DST: each code is'),
        (
            '[helpers.one]\ncommand = ["sh", "hunter2"]\n',
            "file:2: [helpers.one] command: must begin with an absolute path, not sh",
        ),
        (
            '[helpers.one]\ncommand = ["/no", "hunter2"]\n',
            "[helpers.one] command: /no is not a program",
        ),
        (f"{ONE}{RULE.replace('one', 'onne')}", "there is no such helper; did you mean one?"),
        (RULE, "there is no such helper; each has a table that begins with [helpers.NAME]"),
        (f"{ONE}{RULE.replace('true', 'false')}", "only in a rule that allows"),
    ],
)
def test_mistakes(config: str, line: str, tmp_path: Path) -> None:
    lines = problems(config, tmp_path)
    assert len(lines) == 1
    assert line in lines[0]
    assert "hunter2" not in lines[0]


def test_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The helper is named, and not asked."""
    file = tmp_path / "file.toml"
    file.write_text(ONE + RULE)
    main(["explain", str(file), "connect", "192.0.2.1:80"])
    assert "if the helper one permits it, which is not asked here" in capsys.readouterr().out
