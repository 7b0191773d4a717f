"""How fast sessions move bytes: see :mod:`socksproxy.admin.rates`."""

from __future__ import annotations

import pytest

from socksproxy.admin.rates import Rates


def test_rate() -> None:
    """At first of the whole session, then since the last look; two looks at once see the same."""
    rates = Rates()
    assert rates.look(1, 110.0, 5000, 100.0) == 500
    assert rates.look(1, 110.5, 9000, 100.0) == 500
    assert rates.look(1, 112.0, 5000, 100.0) == 0
    assert rates.look(1, 114.0, 9000, 100.0) == 2000


def test_new_session() -> None:
    """A session that has just begun moves no endless number of bytes a second."""
    assert Rates().look(1, 100.0, 900, 100.0) == pytest.approx(1000)


def test_forgets() -> None:
    """Sessions that have ended take no memory for ever."""
    rates = Rates()
    for number in range(5000):
        rates.look(number, 1.0, 0, 0.0)
    rates.keep(set(range(10)))
    assert len(rates) == 10
