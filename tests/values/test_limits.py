"""Limits as an operator gives them: see :mod:`socksproxy.values.limits`."""

from __future__ import annotations

from typing import Any

import pytest

from socksproxy.values.limits import Limits, Rate, ServerLimits


def test_anything() -> None:
    assert not Limits()
    assert Limits(sessions=1)
    assert Limits(download=Rate(1000))


def test_over() -> None:
    """What a record does not say, its template says."""
    template = Limits(sessions=5, upload=Rate(10), daily=1000)
    assert Limits(sessions=7).over(template) == Limits(sessions=7, upload=Rate(10), daily=1000)
    assert Limits().over(template) == template


@pytest.mark.parametrize("name", ["daily", "monthly"])
@pytest.mark.parametrize("scope", ["server", "client", "network", "user"])
def test_counts_bytes(scope: str, name: str) -> None:
    """Quotas need a file, whichever scope has them."""
    quota: Any = {name: 1000}
    rate: Any = {scope: Limits(upload=Rate(10))}
    limited: Any = {scope: Limits(**quota)}
    assert ServerLimits(**limited).counts_bytes
    assert not ServerLimits(**rate).counts_bytes
