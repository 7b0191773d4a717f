"""
Amounts as an operator writes them: ``10 GiB``, ``1 MB/s``, ``8 Mbit/s``, ``10/s``, or plain numbers.

Functions read a number or a text and return its value, or raise
:class:`~socksproxy.values.errors.ConfigError`. Other functions turn values back into text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import attrs

from .errors import ConfigError
from .limits import Fallback, Limits, Rate

_THOUSANDS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = _THOUSANDS | {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
#: Units of bits, in bytes of eight bits.
_BITS = {"bit": Fraction(1, 8)} | {
    f"{prefix}bit": Fraction(10**power, 8) for prefix, power in (("k", 3), ("M", 6), ("G", 9))
}
_SIZES = {unit: Fraction(size) for unit, size in _UNITS.items()}
_BYTE_RATES = {f"{unit}/s": size for unit, size in (_SIZES | _BITS).items()}
#: Seconds of the periods for which a message gives a rate per second, because a rate of bytes has no other.
_PERIODS = {"min": 60, "h": 3600, "day": 86400}
_RATES = {"/s": Fraction(1), "/min": Fraction(1, 60), "/h": Fraction(1, 3600)}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z/].*)?")

#: Other spellings of units of bits and bytes.
_SPELLED = re.compile(
    r"(?P<prefix>[kKmMgGtT]?)(?P<binary>i?)(?P<kind>[bB]ytes?|BYTES?|[bB]its?|BITS?|b|B)(?P<per>ps|/s|/sec|/second)?"
)

#: The largest number: SQLite stores no larger one.
MOST = (1 << 63) - 1


def size(value: Any) -> int:
    """
    Reads a number of bytes, such as ``10 GiB``.

    :raises ConfigError: when *value* is not a number of bytes.
    """
    return math.floor(_amount(value, _SIZES, 'bytes such as 5000000 or "5 MB"'))


def byte_rate(value: Any) -> float:
    """Reads a number of bytes per second, such as ``1 MB/s``."""
    return float(_amount(value, _BYTE_RATES, 'bytes a second such as 1000000 or "1 MB/s"'))


def event_rate(value: Any) -> float:
    """Reads a number of events per second, such as ``10/s``."""
    return float(_amount(value, _RATES, 'so many a second such as 10 or "10/s"', least=0))


def whole(value: Any) -> int:
    """Reads a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("not a whole number above 0")
    if value > MOST:
        raise ConfigError("a number that is too large")
    return value


def _amount(value: Any, units: Mapping[str, Fraction], wanted: str, least: int = 1) -> Fraction:
    """
    *value* in the smallest unit.

    :param units: the value of each unit.
    :param wanted: the words for a valid value, for the message.
    :param least: the least valid amount; 0: any amount above 0.
    """
    number = _of_text(value, units, wanted) if isinstance(value, str) else _of_number(value, wanted)
    if number <= 0:
        raise ConfigError("not above 0")
    if number < least:
        raise ConfigError("less than one byte")
    if number > MOST:
        raise ConfigError("a number that is too large")
    return number


def _of_number(value: Any, wanted: str) -> Fraction:
    # Every int is finite, and math.isfinite() fails for an int that is too large for a float.
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not finite:
        raise ConfigError(f"not {wanted}")
    return Fraction(value)


def _of_text(text: str, units: Mapping[str, Fraction], wanted: str) -> Fraction:
    # Python refuses to read thousands of digits.
    matched = _AMOUNT.fullmatch(text.strip()) if len(text) < 64 else None
    if matched is None:
        raise ConfigError(f"not {wanted}")
    unit = "".join((matched[2] or "").split())
    if unit and unit not in units:
        raise ConfigError(_no_unit(Fraction(matched[1]), unit, units))
    return Fraction(matched[1]) * (units[unit] if unit else 1)


def _no_unit(number: Fraction, unit: str, units: Mapping[str, Fraction]) -> str:
    """The message about *number* of an unknown *unit*, which is not in *units*."""
    if f"{unit}/s" in units:
        return f"must be a rate, in {unit}/s"
    if unit.removesuffix("/s") in units:
        return f"must be an amount, in {unit.removesuffix('/s')}"
    amount, _, period = unit.partition("/")
    if period in _PERIODS and f"{amount}/s" in units:
        second = _exact(number * units[f"{amount}/s"] / _PERIODS[period])
        return f'no such unit; "{_plainly(number)} {unit}" is "{second}/s"'
    spelled = _SPELLED.fullmatch(unit)
    if spelled is not None and units is not _RATES:
        return _meant(number, spelled, rate=units is _BYTE_RATES)
    same = [known for known in units if known.lower() == unit.lower()]
    near = same or get_close_matches(unit, units, 1, 0.6)
    if near:
        return f"no such unit; did you mean {near[0]}?"
    *most, last = units
    return f"no such unit; there are {', '.join(most)} and {last}"


def _meant(number: Fraction, spelled: re.Match[str], *, rate: bool) -> str:
    """
    The message about *number* of a unit of bits or bytes in another spelling: what it may mean.

    :param spelled: the parts of the unit.
    :param rate: whether the value should be a rate per second.
    """
    prefix, binary, kind = spelled["prefix"].upper(), spelled["binary"], spelled["kind"]
    power = " KMGT".index(prefix or " ")
    factor = Fraction(1024 if binary else 1000) ** power
    per = "/s" if rate else ""
    if kind == "B" or kind.lower().startswith("byte"):
        bytes_ = f"{'k' if prefix == 'K' and not binary else prefix}{'i' if binary and prefix else ''}B{per}"
        return f"no such unit; did you mean {bytes_}?"
    exact = f'"{_exact(number * factor / 8)}{per}"'
    bits = f'"{_plainly(number)} {"k" if prefix == "K" else prefix}bit{per}"'
    meant = f"in bytes that is {exact}" if binary or not rate or prefix == "T" else f"{bits} is {exact}"
    if kind == "b" and spelled["per"] != "ps":
        also = f'"{_plainly(number)} {"k" if prefix == "K" and not binary else prefix}{binary}B{per}"'
        return f"no such unit; if b stands for bits, {meant}; if it stands for bytes, write {also}"
    return f"no such unit; {meant}"


def _exact(number: Fraction) -> str:
    """*number* of bytes in the largest unit that needs at most three decimals, or in bytes, rounded down."""
    for unit in reversed(_THOUSANDS):
        amount = number / _THOUSANDS[unit]
        if amount >= 1 and (amount * 1000).denominator == 1:
            return f"{_plainly(amount)} {unit}"
    return f"{math.floor(number)} B"


def _plainly(number: Fraction) -> str:
    """*number* in decimal digits, without zeros at its end."""
    if number.denominator == 1:
        return str(number.numerator)
    return f"{float(number):.6f}".rstrip("0").rstrip(".")


def told_size(number: float) -> str:
    """*number* of bytes in the largest unit that is not larger than *number*."""
    unit = next((unit for unit in reversed(_THOUSANDS) if number >= _THOUSANDS[unit]), "B")
    return f"{round(number / _THOUSANDS[unit], 3):g} {unit}"


def told(limits: Limits) -> str:
    """*limits* in one line, by the names of the file's keys."""
    return ", ".join(f"{key} {_told(key, value)}" for key, value in said(limits))


def said(limits: Limits) -> Iterator[tuple[str, Any]]:
    """The limits that are set, each with the name of the file's key."""
    for field in attrs.fields(Limits):
        value = getattr(limits, field.name)
        if value is not None:
            yield field.name.replace("_", "-"), value


def data(limits: Limits) -> dict[str, Any]:
    """*limits* in plain types, for JSON."""
    return {key: _plain(value) for key, value in said(limits)}


def _plain(value: Any) -> Any:
    if isinstance(value, Fallback):
        return value.value
    return value._asdict() if isinstance(value, Rate) else value


def _told(key: str, value: Any) -> str:
    if key in ("daily", "monthly"):
        return told_size(value)
    if not isinstance(value, Rate):
        return str(_plain(value))
    amount = told_size if key in ("upload", "download") else "{:g}".format
    text = f"{amount(value.per_second)}/s"
    return text if value.burst is None else f"{text} (burst {amount(value.burst)})"
