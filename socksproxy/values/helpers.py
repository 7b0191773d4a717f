"""
The settings of external helpers, which judge logins and requests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import attrs

from .errors import ConfigError

#: The fields of a question, by the codes that Squid has for them, each in its old and its new form.
CODES = {
    "%SRC": "client",
    "%>a": "client",
    "%SRCPORT": "client_port",
    "%>p": "client_port",
    "%LOGIN": "user",
    "%un": "user",
    "%ul": "user",
    "%DST": "host",
    "%>rd": "host",
    "%PORT": "port",
    "%>rP": "port",
    "%METHOD": "command",
    "%>rm": "command",
}

#: What a question about a request tells, where the configuration does not say.
FORMAT = "%SRC %un %METHOD %DST %PORT"

_CODE = re.compile(r"%[A-Za-z>]+")


def _command(value: str | Sequence[str]) -> tuple[str, ...]:
    # The arguments may be secrets: messages show the program alone.
    words = (value,) if isinstance(value, str) else tuple(value)
    if not words or not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise ConfigError("must be the path of a program, and its arguments", path=("command",))
    if not os.path.isabs(words[0]):
        raise ConfigError(f"must begin with an absolute path, not {words[0]}", path=("command",), shown=False)
    if not (os.path.isfile(words[0]) and os.access(words[0], os.X_OK)):
        reason = f"{words[0]} is not a program that this user may run"
        raise ConfigError(reason, path=("command",), shown=False)
    return words


def _format(value: str) -> str:
    for code in value.split():
        if code.startswith("%") and code not in CODES:
            raise ConfigError(f"{code} is none of {', '.join(CODES)}", path=("format",))
        if not code.startswith("%") and _CODE.search(code):
            raise ConfigError(f"{code}: each code is a word of its own", path=("format",))
    return " ".join(value.split())


def _from(least: float, most: float) -> Any:
    def check(settings: object, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise ConfigError(
                f"must be a number from {least:g} to {most:g}", path=(attribute.name.replace("_", "-"),)
            )

    return check


@attrs.frozen(kw_only=True)
class HelperSettings:
    """
    An external helper.

    :ivar command: the program and its arguments. No shell reads them.
    :ivar children: the greatest number of processes.
    :ivar concurrency: the questions that one process has at once, which have channel numbers then; 0: one
        question without a channel number.
    :ivar timeout: seconds until an answer. A question without an answer is a no.
    :ivar ttl: seconds for which a yes counts for further requests of the same kind.
    :ivar negative_ttl: seconds for which a no does.
    :ivar format: what a question about a request tells: words, and codes such as ``%SRC``.
    :raises ConfigError: for a value that is wrong; its path is the key.
    """

    command: tuple[str, ...] = attrs.field(converter=_command)
    children: int = attrs.field(default=5, validator=_from(1, 256))
    concurrency: int = attrs.field(default=0, validator=_from(0, 10000))
    timeout: float = attrs.field(default=10.0, validator=_from(0.1, 600))
    ttl: float = attrs.field(default=60.0, validator=_from(0, 86400))
    negative_ttl: float = attrs.field(default=10.0, validator=_from(0, 86400))
    format: str = attrs.field(default=FORMAT, converter=_format)
