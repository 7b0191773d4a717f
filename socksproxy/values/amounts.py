"""
Amounts as an operator writes them: ``10 GiB``, ``1 MB/s``, ``8 Mbit/s``, ``10/s``, or plain numbers.

Numbers and text in, the meaning out, or :class:`~socksproxy.values.errors.ConfigError`; and back to text.
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
from .limits import Limits, Rate

_THOUSANDS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = _THOUSANDS | {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
#: In bytes, of which each has eight.
_BITS = {"bit": Fraction(1, 8)} | {
    f"{prefix}bit": Fraction(10**power, 8) for prefix, power in (("k", 3), ("M", 6), ("G", 9))
}
_SIZES = {unit: Fraction(size) for unit, size in _UNITS.items()}
_BYTE_RATES = {f"{unit}/s": size for unit, size in (_SIZES | _BITS).items()}
#: Seconds of the periods that a rate of bytes may not have.
_PERIODS = {"min": 60, "h": 3600, "day": 86400}
_RATES = {"/s": Fraction(1), "/min": Fraction(1, 60), "/h": Fraction(1, 3600)}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z/].*)?")

#: Units of bits and bytes that are spelled in other ways than ours.
_SPELLED = re.compile(
    r"(?P<prefix>[kKmMgGtT]?)(?P<binary>i?)(?P<kind>[bB]ytes?|BYTES?|[bB]its?|BITS?|b|B)(?P<per>ps|/s|/sec|/second)?"
)

#: More is no limit, and fits in no file.
MOST = (1 << 63) - 1


def size(value: Any) -> int:
    """
    Reads a number of bytes, such as ``10 GiB``.

    :raises ConfigError: when it is none.
    """
    return math.floor(_amount(value, _SIZES, 'bytes such as 5000000 or "5 MB"'))


def byte_rate(value: Any) -> float:
    """Reads bytes in a second, such as ``1 MB/s``."""
    return float(_amount(value, _BYTE_RATES, 'bytes a second such as 1000000 or "1 MB/s"'))


def event_rate(value: Any) -> float:
    """Reads how often in a second, such as ``10/s``."""
    return float(_amount(value, _RATES, 'so many a second such as 10 or "10/s"', least=0))


def whole(value: Any) -> int:
    """Reads how many there may be."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("not a whole number above 0")
    if value > MOST:
        raise ConfigError("a number that is too large")
    return value


def _amount(value: Any, units: Mapping[str, Fraction], wanted: str, least: int = 1) -> Fraction:
    """
    *value* in the smallest unit.

    :param units: what each is worth.
    :param wanted: what would be right.
    :param least: what there must be of it at least; 0: anything above.
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
    # Whether an int is finite is nothing to ask: a float that would tell may not hold it.
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
    """What to say of *number* of a *unit* that is none of *units*."""
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
    What *number* of a unit of bits or bytes may mean that is *spelled* in another way.

    :param rate: whether it should be a second's.
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
    """*number* of bytes in the largest unit in which it has three decimals are enough, else rounded down."""
    for unit in reversed(_THOUSANDS):
        amount = number / _THOUSANDS[unit]
        if amount >= 1 and (amount * 1000).denominator == 1:
            return f"{_plainly(amount)} {unit}"
    return f"{math.floor(number)} B"


def _plainly(number: Fraction) -> str:
    """*number* in decimal digits, as few as there can be."""
    if number.denominator == 1:
        return str(number.numerator)
    return f"{float(number):.6f}".rstrip("0").rstrip(".")


# For who reads it.


def told_size(number: float) -> str:
    """*number* of bytes in the largest unit of which there are any."""
    unit = next((unit for unit in reversed(_THOUSANDS) if number >= _THOUSANDS[unit]), "B")
    return f"{round(number / _THOUSANDS[unit], 3):g} {unit}"


def told(limits: Limits) -> str:
    """What *limits* say, by the names of the file's keys."""
    return ", ".join(f"{key} {_told(key, value)}" for key, value in said(limits))


def said(limits: Limits) -> Iterator[tuple[str, Any]]:
    """Each limit, by the name of the file's key."""
    for field in attrs.fields(Limits):
        value = getattr(limits, field.name)
        if value is not None:
            yield field.name.replace("_", "-"), value


def data(limits: Limits) -> dict[str, Any]:
    """*limits* as plain types."""
    return {key: value._asdict() if isinstance(value, Rate) else value for key, value in said(limits)}


def _told(key: str, value: Any) -> str:
    if key in ("daily", "monthly"):
        return told_size(value)
    if not isinstance(value, Rate):
        return str(value)
    amount = told_size if key in ("upload", "download") else "{:g}".format
    text = f"{amount(value.per_second)}/s"
    return text if value.burst is None else f"{text} (burst {amount(value.burst)})"
