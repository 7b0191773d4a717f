"""A record of a user or a group that lifts limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from socksproxy.cli import main
from socksproxy.config.limits import limits_reader
from socksproxy.limits.ledger import Ledger
from socksproxy.values.errors import ConfigError
from socksproxy.values.limits import UNLIMITED, UNLIMITED_RATE, Limits, Rate, ServerLimits

OF_ALL = Limits(sessions=2, upload=Rate(9.0), daily=100)
LIFTED = Limits(sessions=UNLIMITED, upload=UNLIMITED_RATE, daily=UNLIMITED)


def test_over_all() -> None:
    """The record lifts what its group and all users have; what it does not name stays."""
    assert Limits(sessions=UNLIMITED).over_all(OF_ALL) == Limits(upload=Rate(9.0), daily=100)
    assert not LIFTED.over_all(OF_ALL)
    assert Limits(sessions=UNLIMITED).over(Limits(sessions=5)).over_all(OF_ALL).sessions is None
    assert Limits(sessions=7).over(LIFTED).over_all(OF_ALL) == Limits(sessions=7)
    assert OF_ALL.over_all(Limits()) == OF_ALL


def test_ledger() -> None:
    """A user without limits has no account."""
    ledger = Ledger(Clock(), ServerLimits(user=Limits(sessions=2)))
    assert ledger.user_limits(None) == Limits(sessions=2)
    assert ledger.user_limits(Limits(sessions=UNLIMITED)) is None


@pytest.mark.parametrize("key", ["sessions", "new-sessions", "upload", "daily"])
def test_only_in_records(key: str) -> None:
    """Users and groups have the word; rules do not, and a quota needs its file nevertheless."""
    read = limits_reader(True, lifts=True)({key: "unlimited"}, (), [])
    assert not read.over_all(Limits())
    assert read
    errors: list[ConfigError] = []
    limits_reader(True)({key: "unlimited"}, (), errors)
    assert len(errors) == 1


def test_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The group's limit is gone for the one, and holds for the other."""
    file = tmp_path / "socks.toml"
    file.write_text(
        '[groups.staff]\nlimits = { sessions = 5 }\n[users.bob]\ngroups = ["staff"]\n'
        '[users.eve]\ngroups = ["staff"]\nlimits = { sessions = "unlimited" }\n'
    )
    for user, limited in (("bob", True), ("eve", False)):
        main(["explain", str(file), "--user", user, "--from", "192.0.2.7", "connect", "203.0.113.1:443"])
        assert (f"limits of user {user}" in capsys.readouterr().out) is limited
