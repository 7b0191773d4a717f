"""
Parsers for the values of options, on the command line and in the configuration file.

A parser takes a text and returns its value, or raises :class:`~socksproxy.values.errors.ConfigError`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from .errors import ConfigError

#: Most workers: each one is a process, and has a column in every row of the shared counts.
MOST_WORKERS = 256

Parser = Callable[[str], Any]


def seconds(or_zero: str = "", zero: float = 0.0) -> Parser:
    """
    A parser for a number of seconds above 0.

    :param or_zero: the words for the meaning of 0, for messages; empty: 0 is wrong.
    :param zero: the value of 0.
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
    A parser for a whole number above 0.

    :param or_zero: the words for the meaning of 0, for messages; empty: 0 is wrong.
    :param most: the largest valid number; None: any number is valid.
    :param zero: the value of 0.
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
    A parser for a port.

    :param least: the least valid port: 0 where the system may choose a port, or 1.
    """

    def parse(text: str) -> int:
        if not (_is_number(text) and least <= int(text) < 65536):
            raise ConfigError(f"not a number from {least} to 65535", text)
        return int(text)

    return parse


def one_of(words: Iterable[str], wanted: str, kind: Callable[[str], Any] = str) -> Parser:
    """
    A parser for one of several words.

    :param words: the valid words.
    :param wanted: the message about any other word.
    :param kind: makes the value from the word.
    """
    known = frozenset(words)

    def parse(text: str) -> Any:
        if text not in known:
            raise ConfigError(wanted, text)
        return kind(text)

    return parse


def workers(text: str) -> int:
    """Reads the number of workers; ``auto`` is the number of cores."""
    if text == "auto":
        return cores()
    if not (_is_number(text) and 0 < int(text) <= MOST_WORKERS):
        raise ConfigError(f"neither auto nor a number from 1 to {MOST_WORKERS}", text)
    return int(text)


def cores() -> int:
    """The number of cores on which this process may run, at most :data:`MOST_WORKERS`."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return min(os.cpu_count() or 1, MOST_WORKERS)


def _is_number(text: str) -> bool:
    # Python refuses to read thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) < 20
