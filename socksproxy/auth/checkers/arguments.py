"""
The argument of ``--auth TYPE:ARGUMENT``: names and values, as in the description of an endpoint.

Twisted's own parser of descriptions is private, and accepts parts that are empty or have no name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from twisted.cred.strcred import InvalidAuthArgumentString

from ...net.endpoints import unquoted
from ...values.errors import ConfigError
from ...values.parsers import Parser

# In a value, "\" quotes a colon and itself.
_PART = re.compile(r"(?:\\.|[^:\\])+", re.DOTALL)


def arguments(
    kind: str, text: str, parsers: Mapping[str, Parser], *, repeatable: Collection[str] = ()
) -> dict[str, Any]:
    r"""
    The values in *text*, by their names. A repeatable name has a list of values.

    :param kind: the type of authentication, for the errors.
    :param text: ``NAME=VALUE:NAME=VALUE``; a ``\`` quotes a colon.
    :param parsers: the names that are known, and what reads their values.
    :param repeatable: the names that may have more than one value.
    :raises InvalidAuthArgumentString: when *text* has another form, or a value is wrong.
    """
    found: dict[str, Any] = {}
    if not text:
        return found
    end = -1
    for part in _PART.finditer(text):
        if part.start() != end + 1:
            break
        end = part.end()
        name, _, value = part[0].partition("=")
        if name not in parsers:
            known = " or ".join(f"{known}=" for known in parsers)
            raise InvalidAuthArgumentString(f"{kind}: {part[0]} is not {known} and a value")
        if not value:
            raise InvalidAuthArgumentString(f"{kind}: {name}= has no value")
        if name in found and name not in repeatable:
            raise InvalidAuthArgumentString(f"{kind}: {name}= is there twice, and once is enough")
        try:
            meaning = parsers[name](unquoted(value))
        except ConfigError as wrong:
            raise InvalidAuthArgumentString(f"{kind}: {name}={unquoted(value)} is {wrong.reason}") from None
        found[name] = [*found.get(name, ()), meaning] if name in repeatable else meaning
    if end != len(text):
        raise InvalidAuthArgumentString(f"{kind}: {text} is not NAME=VALUE, with colons between several")
    return found
