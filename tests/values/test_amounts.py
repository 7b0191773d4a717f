"""Amounts as an operator writes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from socksproxy.limits import Limits, Rate
from socksproxy.values.amounts import MOST, byte_rate, data, event_rate, size, told, told_size, whole
from socksproxy.values.errors import ConfigError
from socksproxy.values.limits import Fallback


@pytest.mark.parametrize(
    ("parse", "value", "meaning"),
    [
        (size, 5_000_000, 5_000_000),
        (size, 1.5e6, 1_500_000),
        (size, "500", 500),
        (size, "500 B", 500),
        (size, "5 kB", 5_000),
        (size, "5MB", 5_000_000),
        (size, "0.1 GB", 100_000_000),
        (size, " 2 TB ", 2 * 10**12),
        (size, "1 KiB", 1 << 10),
        (size, "1 MiB", 1 << 20),
        (size, "10 GiB", 10 << 30),
        (size, "1.5 TiB", 3 << 39),
        (size, "1.0009 kB", 1000),
        (byte_rate, 1_000_000, 1e6),
        (byte_rate, "1 MB/s", 1e6),
        (byte_rate, "1MiB/s", 1 << 20),
        (byte_rate, "1 MB / s", 1e6),
        (byte_rate, "8 bit/s", 1),
        (byte_rate, "8 kbit/s", 1e3),
        (byte_rate, "8 Mbit/s", 1e6),
        (byte_rate, "1 Gbit/s", 125e6),
        (event_rate, 10, 10),
        (event_rate, 0.5, 0.5),
        (event_rate, "10/s", 10),
        (event_rate, "10 / s", 10),
        (event_rate, "30/min", 0.5),
        (event_rate, "36/h", 0.01),
        (whole, 7, 7),
        (whole, MOST, MOST),
    ],
)
def test_meanings(parse: Callable[[Any], float], value: Any, meaning: float) -> None:
    assert parse(value) == meaning


NO_SIZE = 'not bytes such as 5000000 or "5 MB"'
BITS, BYTES = "no such unit; if b stands for bits", "if it stands for bytes, write"
NO_RATE = 'not bytes a second such as 1000000 or "1 MB/s"'
NO_FREQUENCY = 'not so many a second such as 10 or "10/s"'


@pytest.mark.parametrize(
    ("parse", "value", "reason"),
    [
        (size, "much", NO_SIZE),
        (size, "", NO_SIZE),
        (size, "1,5 MB", NO_SIZE),
        (size, "-5 MB", NO_SIZE),
        (size, "1e6", "no such unit; there are B, kB, MB, GB, TB, KiB, MiB, GiB and TiB"),
        (size, "9" * 5000, NO_SIZE),
        (size, True, NO_SIZE),
        (size, [5], NO_SIZE),
        (size, {}, NO_SIZE),
        (size, float("nan"), NO_SIZE),
        (size, float("inf"), NO_SIZE),
        (size, 0, "not above 0"),
        (size, "0 MB", "not above 0"),
        (size, -5, "not above 0"),
        (size, 0.5, "less than one byte"),
        (size, "0.0001 kB", "less than one byte"),
        (size, 1 << 63, "a number that is too large"),
        (size, "99999999999 TB", "a number that is too large"),
        (size, "5 KB", "no such unit; did you mean kB?"),
        (
            size,
            "5 gib",
            f'{BITS}, in bytes that is "671088.64 kB"; {BYTES} "5 GiB"',
        ),
        (byte_rate, "6 MB/min", 'no such unit; "6 MB/min" is "100 kB/s"'),
        (byte_rate, "3.6 GB/h", 'no such unit; "3.6 GB/h" is "1 MB/s"'),
        (size, "5 apples", "no such unit; there are B, kB, MB, GB, TB, KiB, MiB, GiB and TiB"),
        (size, "5 GB/s", "must be an amount, in GB"),
        (byte_rate, "5 GB", "must be a rate, in GB/s"),
        (byte_rate, "8 Mbit", "must be a rate, in Mbit/s"),
        (byte_rate, "8 Mbps", 'no such unit; "8 Mbit/s" is "1 MB/s"'),
        (
            byte_rate,
            "8 mb/s",
            f'{BITS}, "8 Mbit/s" is "1 MB/s"; {BYTES} "8 MB/s"',
        ),
        (byte_rate, "10/s", "no such unit; did you mean B/s?"),
        (byte_rate, "1 bit/s", "less than one byte"),
        (byte_rate, None, NO_RATE),
        (event_rate, "ten/s", NO_FREQUENCY),
        (event_rate, "10 MB", "no such unit; there are /s, /min and /h"),
        (event_rate, "10/sec", "no such unit; did you mean /s?"),
        (event_rate, "0/s", "not above 0"),
        (event_rate, False, NO_FREQUENCY),
        (whole, 0, "not a whole number above 0"),
        (whole, True, "not a whole number above 0"),
        (whole, 1.0, "not a whole number above 0"),
        (whole, "7", "not a whole number above 0"),
        (whole, MOST + 1, "a number that is too large"),
    ],
)
def test_mistakes(parse: Callable[[Any], float], value: Any, reason: str) -> None:
    """What would be right."""
    with pytest.raises(ConfigError) as caught:
        parse(value)
    assert caught.value.reason == reason


@given(
    st.text()
    | st.integers()
    | st.floats()
    | st.from_regex(r"[0-9.]{1,5} ?[kKMGTibBits/]{0,6}", fullmatch=True)
)
def test_a_meaning_or_a_reason(value: Any) -> None:
    """And nothing else, whatever is said."""
    for parse in (size, byte_rate, event_rate):
        with suppress(ConfigError):
            assert 0 < parse(value) <= float(MOST)


@given(st.integers(1, 999), st.sampled_from(["B", "kB", "MB", "GB", "TB"]))
def test_told_as_it_was_said(number: int, unit: str) -> None:
    assert told_size(size(f"{number} {unit}")) == f"{number} {unit}"


def test_limits_told() -> None:
    """By the keys of the file, all of them; for JSON as numbers."""
    limits = Limits(
        sessions=100,
        binds=8,
        associations=20,
        devices=3,
        new_sessions=Rate(10, 50),
        upload=Rate(1e6),
        download=Rate(1.5e6, 4_000_000),
        daily=5_000_000_000,
        monthly=123,
        counts="upload",
        shared=Fallback.STRICT,
    )
    assert told(limits) == (
        "sessions 100, binds 8, associations 20, devices 3, new-sessions 10/s (burst 50), upload 1 MB/s, "
        "download 1.5 MB/s (burst 4 MB), daily 5 GB, monthly 123 B, counts upload, shared strict"
    )
    assert list(data(limits)) == [field.name.replace("_", "-") for field in attrs.fields(Limits)]
    assert data(limits)["shared"] == "strict"
    assert data(Limits(binds=1, upload=Rate(2.0, 5.0))) == {
        "binds": 1,
        "upload": {"per_second": 2.0, "burst": 5.0},
    }
    assert (told(Limits()), data(Limits())) == ("", {})
