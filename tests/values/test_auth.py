"""How clients are asked: see :mod:`socksproxy.values.auth`."""

from __future__ import annotations

import pytest

from socksproxy.values.auth import AuthSettings
from socksproxy.values.timeouts import NEVER


def test_a_decision_comes() -> None:
    """A client is not kept without an end by a portal that does not answer."""
    assert AuthSettings().timeout == 8
    for never in (NEVER, 0, None):
        with pytest.raises(ValueError, match="timeout"):
            AuthSettings(timeout=never)  # type: ignore[arg-type]
