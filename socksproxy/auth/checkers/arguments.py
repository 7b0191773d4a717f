"""
The argument of ``--auth TYPE:ARGUMENT``: names and values, as in the description of an endpoint.

Twisted's own parser of descriptions is private, and accepts parts that are empty or have no name.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from twisted.cred.strcred import InvalidAuthArgumentString

from ...net.endpoints import unquoted

# In a value, "\" quotes a colon and itself.
_PART = re.compile(r"(?:\\.|[^:\\])+", re.DOTALL)


def arguments(
    kind: str, text: str, names: Collection[str], *, repeatable: Collection[str] = ()
) -> dict[str, list[str]]:
    r"""
    The values of each of *names* in *text*, in their order.

    :param kind: the type of authentication, for the errors.
    :param text: ``NAME=VALUE:NAME=VALUE``; a ``\`` quotes a colon.
    :param repeatable: the *names* that may have more than one value.
    :raises InvalidAuthArgumentString: when *text* has another form.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    if not text:
        return found
    end = -1
    for part in _PART.finditer(text):
        if part.start() != end + 1:
            break
        end = part.end()
        name, _, value = part[0].partition("=")
        if name not in found:
            known = " or ".join(f"{known}=" for known in names)
            raise InvalidAuthArgumentString(f"{kind}: {part[0]} is not {known} and a value")
        if not value:
            raise InvalidAuthArgumentString(f"{kind}: {name}= has no value")
        if found[name] and name not in repeatable:
            raise InvalidAuthArgumentString(f"{kind}: {name}= is there twice, and once is enough")
        found[name].append(unquoted(value))
    if end != len(text):
        raise InvalidAuthArgumentString(f"{kind}: {text} is not NAME=VALUE, with colons between several")
    return found
