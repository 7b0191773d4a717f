"""Tables of networks and names: see :mod:`socksproxy.policy.sets.tables`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from socksproxy.policy.sets import (
    NameTable,
    NetworkTable,
)

NUMBERS4 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 0xFFFF, 0x10000, 0x10001, 2**32 - 1])


NUMBERS6 = st.integers(0, 2**128 - 1) | st.builds(
    lambda high, low: high << 64 | low, st.integers(0, 3), st.sampled_from([0, 1, 2, 2**64 - 1])
)


def ranges(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair))), max_size=8)


@pytest.mark.slow
@given(ranges(NUMBERS4), ranges(NUMBERS6), st.lists(NUMBERS4), st.lists(NUMBERS6))
def test_table(
    ranges4: list[tuple[int, int]], ranges6: list[tuple[int, int]], asked4: list[int], asked6: list[int]
) -> None:
    """An address is in the table if it is in a range that was given, and the answer holds it."""
    table = NetworkTable(ranges4, ranges6)
    for given_ranges, asked, ipv6 in ((ranges4, asked4, False), (ranges6, asked6, True)):
        ends = [number + step for pair in given_ranges for number in pair for step in (-1, 0, 1)]
        for number in [*asked, *ends]:
            if not 0 <= number < (1 << (128 if ipv6 else 32)):
                continue
            found = table.range_of(number, ipv6)
            held = [pair for pair in given_ranges if pair[0] <= number <= pair[1]]
            assert (found is not None) is bool(held)
            if found is not None:
                assert found[0] <= min(pair[0] for pair in held)
                assert found[1] >= max(pair[1] for pair in held)


LABELS = st.sampled_from(["a", "b", "ads", "x-1"])


HOSTNAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@pytest.mark.slow
@given(st.lists(st.builds("{}{}".format, st.sampled_from(["", "*.", "."]), HOSTNAMES)), st.lists(HOSTNAMES))
def test_names(patterns: list[str], names: list[str]) -> None:
    table = NameTable(patterns)
    exact = {pattern.lstrip(".") for pattern in patterns if not pattern.startswith("*")}
    suffixes = tuple(pattern.lstrip("*") for pattern in patterns if pattern[0] in "*.")
    for name in names:
        assert table.holds(name) is (name in exact or name.endswith(suffixes))
