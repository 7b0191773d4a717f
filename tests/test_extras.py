"""Optional packages: see :mod:`socksproxy.extras`."""

from __future__ import annotations

from socksproxy.extras import MODULES, missing


def test_missing() -> None:
    """The message says what to install."""
    told = missing("dns", ImportError("No module named 'dns'"))
    assert told == (
        "the extra [dns] is not installed (No module named 'dns'): pip install 'twisted-socksproxy[dns]'"
    )


def test_modules() -> None:
    assert all(MODULES.values())
