"""What the configuration comes to: see :mod:`socksproxy.config.plan`."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.support.service import parsed


def test_set_files(tmp_path: Path) -> None:
    """They are watched; without rules there are none."""
    assert list(parsed("-p", "0").plan.set_files) == []
    (tmp_path / "bad.txt").write_text("192.0.2.1\n")
    (tmp_path / "socks.toml").write_text(
        f'[sets.bad]\nnetworks-file = "{tmp_path}/bad.txt"\n'
        '[[rule]]\nname = "a"\nallow = false\nnetworks = ["bad"]\n'
    )
    plan = parsed("--config", str(tmp_path / "socks.toml")).plan
    assert [file.path for file in plan.set_files] == [str(tmp_path / "bad.txt")]
    assert plan.guarded


def test_frozen() -> None:
    """A reload makes another plan, and does not change the one in force."""
    plan = parsed("-p", "0", "--drain", "5").plan
    assert (plan.drain, plan.workers, plan.open, plan.guarded) == (5, 1, False, False)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        plan.drain = 6  # type: ignore[misc]
