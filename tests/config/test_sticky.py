"""The table ``[sticky]``: :mod:`socksproxy.config.sticky`."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import fields

from socksproxy.config.sticky import FIELDS, STICKY_KEYS
from socksproxy.values.sticky import StickySettings

from .test_upstreams import parsed, problems

WORKERS = "[workers]\nworkers = 2\n"


def test_keys() -> None:
    found = [FIELDS.get(key, key.replace("-", "_")) for key in STICKY_KEYS]
    assert found == [field.name for field in fields(StickySettings)]


def test_right(tmp_path: Path) -> None:
    text = "\n".join(f"{key} = {known.example}" for key, known in STICKY_KEYS.items() if key != "file")
    settings = parsed(f'[sticky]\n{text}\nfile = "state"\n', tmp_path).plan.settings
    assert settings.sticky == StickySettings(
        allow=("for",), seconds=1800, strict=True, file=str(tmp_path / "state")
    )
    assert parsed("", tmp_path).plan.settings.sticky is None
    assert parsed("[sticky]\n", tmp_path).plan.settings.sticky == StickySettings()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("sticky = 1\n", 1, "not a table"),
        ("[sticky]\nseperator = 1\n", 2, "did you mean separator?"),
        ("[sticky]\nseparator = 1\n", 2, "not text in quotes"),
        ('[sticky]\nseparator = "x"\n', 2, 'separator = "x": needs a character that no word has'),
        ('[sticky]\nseparator = "-"\n', 1, "one separator is within the other one"),
        ('[sticky]\nallow = ["country"]\n', 2, 'allow[0] = "country": there is for'),
        ("[sticky]\nfor = 0\n", 2, "for = 0: not a number of seconds"),
        ("[sticky]\nfor = true\n", 2, "not a number"),
        ("[sticky]\nmax = 60\n", 1, "more than max"),
        ('[sticky]\nfile = "none/sticky"\n', 2, "no such file or directory"),
        ('[sticky]\n[users."a-session-b"]\n', 2, 'no user can have this name: "-session-" is the separator'),
        (f"[sticky]\n{WORKERS}", 1, "file is missing: several workers need it"),
        ('[outgoing]\noutgoing = ["127.0.0.1", "sticky"]\n', 2, "needs the table [sticky]"),
        ('[users.bob]\noutgoing = ["127.0.0.1", "sticky"]\n', 2, "needs the table [sticky]"),
    ],
)
def test_wrong(tmp_path: Path, text: str, line: int, words: str) -> None:
    found = problems(text, tmp_path)
    assert len(found) == 1, found
    assert f":{line}: " in found[0]
    assert words in found[0]


def test_right_choice(tmp_path: Path) -> None:
    text = '[sticky]\nfile = "state"\n[outgoing]\noutgoing = ["127.0.0.1", "sticky"]\n' + WORKERS
    assert parsed(text, tmp_path).plan.settings.outgoing.choice == "sticky"
