"""
What the values of options mean: text in, the meaning out, or :class:`~socksproxy.values.errors.ConfigError`.

The command line and the configuration file say the same things, so what they say is looked at here for both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from .errors import ConfigError

#: Processes are not free, and each has its place in every client's row of the shared counts.
MOST_WORKERS = 256

Parser = Callable[[str], Any]


def seconds(or_zero: str = "", zero: float = 0.0) -> Parser:
    """
    Reads a number of seconds above 0.

    :param or_zero: what 0 is for, if it is allowed.
    :param zero: the meaning of 0.
    """
    wanted = f"a number of seconds, or 0 {or_zero}" if or_zero else "a number of seconds above 0"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if number == 0 and or_zero:
            return zero
        if math.isfinite(number) and number > 0:
            return number
        raise ConfigError(f"not {wanted}", text)

    return parse


def count(or_zero: str = "", most: int | None = None, zero: float | None = 0) -> Parser:
    """
    Reads a whole number above 0.

    :param or_zero: what 0 is for, if it is allowed.
    :param most: the largest one; None: any.
    :param zero: the meaning of 0.
    """
    wanted = "a whole number above 0" if most is None else f"a whole number from 1 to {most}"
    also = f", or 0 {or_zero}" if or_zero else ""

    def parse(text: str) -> float | None:
        if or_zero and text == "0":
            return zero
        if not (_is_number(text) and int(text) > 0 and (most is None or int(text) <= most)):
            raise ConfigError(f"not {wanted}{also}", text)
        return int(text)

    return parse


def port(least: int) -> Parser:
    """
    Reads a port.

    :param least: 0 where the system may choose, or 1.
    """

    def parse(text: str) -> int:
        if not (_is_number(text) and least <= int(text) < 65536):
            raise ConfigError(f"not a number from {least} to 65535", text)
        return int(text)

    return parse


def one_of(words: Iterable[str], wanted: str, kind: Callable[[str], Any] = str) -> Parser:
    """
    Reads a word.

    :param words: what it may be.
    :param wanted: the reason why another one is wrong.
    :param kind: makes the meaning of the word.
    """
    known = frozenset(words)

    def parse(text: str) -> Any:
        if text not in known:
            raise ConfigError(wanted, text)
        return kind(text)

    return parse


def workers(text: str) -> int:
    """Reads how many processes there are to be."""
    if text == "auto":
        return cores()
    if not (_is_number(text) and 0 < int(text) <= MOST_WORKERS):
        raise ConfigError(f"neither auto nor a number from 1 to {MOST_WORKERS}", text)
    return int(text)


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return min(os.cpu_count() or 1, MOST_WORKERS)


def _is_number(text: str) -> bool:
    # Python refuses to read thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) < 20
