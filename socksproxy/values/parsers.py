"""
What the values of options mean: text in, the meaning out, or :class:`Wrong`.

The command line and the configuration file say the same things, so what they say is looked at here for both.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from ..net.own_listeners import UNIX
from ..net.ports import PortRange

#: Processes are not free, and each has its place in every client's row of the shared counts.
MOST_WORKERS = 256

Parser = Callable[[str], Any]

_LISTENER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Wrong(Exception):
    """
    What was said for an option cannot be meant.

    :param reason: what would be right.
    :param value: what was said; None: the reason tells it.
    :ivar name: the option, once it is known.
    :ivar number: which one of an option's several values it is, from 0 on; None: all of it.
    """

    def __init__(
        self, reason: str, value: str | None = None, *, name: str = "", number: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value
        self.name = name
        self.number = number

    def __str__(self) -> str:
        return f"--{self.name} {self.reason if self.value is None else f'{self.value}: {self.reason}'}"


class WrongListener(Wrong):
    """It is about the listener, however it was said; its reason says which."""

    def __str__(self) -> str:
        return self.reason


def seconds(or_zero: str = "") -> Parser:
    """
    Reads a number of seconds above 0.

    :param or_zero: what 0 is for, if it is allowed.
    """
    wanted = f"a number of seconds, or 0 {or_zero}" if or_zero else "a number of seconds above 0"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number) and (number > 0 or (or_zero and number == 0)):
            return number
        raise Wrong(f"not {wanted}", text)

    return parse


def count(or_zero: str = "", most: int | None = None) -> Parser:
    """
    Reads a whole number above 0.

    :param or_zero: what 0 is for, if it is allowed.
    :param most: the largest one; None: any.
    """
    wanted = "a whole number above 0" if most is None else f"a whole number from 1 to {most}"
    zero = f", or 0 {or_zero}" if or_zero else ""

    def parse(text: str) -> int:
        if or_zero and text == "0":
            return 0
        if not (_is_number(text) and int(text) > 0 and (most is None or int(text) <= most)):
            raise Wrong(f"not {wanted}{zero}", text)
        return int(text)

    return parse


def port(least: int) -> Parser:
    """
    Reads a port.

    :param least: 0 where the system may choose, or 1.
    """

    def parse(text: str) -> int:
        if not (_is_number(text) and least <= int(text) < 65536):
            raise Wrong(f"not a number from {least} to 65535", text)
        return int(text)

    return parse


def one_of(words: Iterable[str], wanted: str) -> Parser:
    """
    Reads a word.

    :param words: what it may be.
    :param wanted: the reason why another one is wrong.
    """
    known = frozenset(words)

    def parse(text: str) -> str:
        if text not in known:
            raise Wrong(wanted, text)
        return text

    return parse


def addresses(hosts: Iterable[Any]) -> tuple[str, ...]:
    """Reads what connections leave from: at most one address of each family."""
    if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Iterable):
        raise Wrong("not a list")
    found: dict[int, str] = {}
    for number, host in enumerate(hosts):
        try:
            version = ip_address(host).version if isinstance(host, str) and "%" not in host else None
        except ValueError:
            version = None
        if version is None:
            raise Wrong("not a literal IPv4 or IPv6 address", number=number)
        if version in found:
            raise Wrong(f"one IPv{version} address is enough", number=number)
        found[version] = host
    return tuple(found.values())


def port_range(text: str) -> PortRange:
    """Reads a range of ports."""
    try:
        return PortRange.parse(text)
    except ValueError as problem:
        raise Wrong(str(problem)) from None


def named_listener(text: str) -> tuple[str | None, str]:
    """Reads the name that rules have for a listener, if it has one, and the description of its endpoint."""
    name, separator, description = text.partition("=")
    if not separator or ":" in name:
        return None, text
    if not _LISTENER_NAME.fullmatch(name) or name == UNIX:
        right = "a listener's name is of letters, digits, '-' and '_', begins with a letter, and is not unix"
        raise Wrong(right, name)
    return name, description


def workers(text: str) -> int:
    """Reads how many processes there are to be."""
    if text == "auto":
        return cores()
    if not (_is_number(text) and 0 < int(text) <= MOST_WORKERS):
        raise Wrong(f"neither auto nor a number from 1 to {MOST_WORKERS}", text)
    return int(text)


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return min(os.cpu_count() or 1, MOST_WORKERS)


def _is_number(text: str) -> bool:
    # Python refuses to read thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) < 20
