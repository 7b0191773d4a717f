"""The figures of operations: the script runs, with few sessions."""

from __future__ import annotations

import shutil

import pytest

import operations

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def test_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody who is to look does, and the echoes are measured with and without them."""
    words = ["--sessions", "10", "--rounds", "1", "--seconds", "2", "--concurrency", "4", "--turns"]
    assert operations.main(words) == 0
    told = capsys.readouterr().out
    assert "longest calls:" in told
    (looked,) = (line for line in told.splitlines() if line.startswith("looked at:"))
    for name in operations.LOOKERS:
        assert f" 0.0 {name}/s" not in looked
        assert f" {name}/s" in looked
    assert "99th percentile" in told
