"""
The configuration as it may be shown: without secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .options import BY_NAME

#: In place of a secret.
HIDDEN = "(not shown)"

#: Keys whose values are secrets, in whatever table.
_SECRET = re.compile(r"(^|[-_])(password|passwd|secret|token|key|psk|credentials)s?$")
#: A user and a password in a URL.
_IN_URL = re.compile(r"//[^/@\s]*@")


def without_secrets(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, as JSON can carry it; values that are secrets, or may have some, are hidden."""
    return {str(key): _shown(str(key), value) for key, value in document.items()}


def _shown(key: str, value: Any) -> Any:
    option = BY_NAME.get(key)
    if option is not None and option.secret:
        return [_kind(entry) for entry in value] if isinstance(value, list) else _kind(value)
    if isinstance(value, Mapping):
        return without_secrets(value)
    if _SECRET.search(key):
        return HIDDEN
    if key == "command" and isinstance(value, list):
        # The arguments of a program may be secrets.
        return [str(value[0]), *[HIDDEN] * (len(value) - 1)] if value else []
    if isinstance(value, list):
        return [_shown("", entry) for entry in value]
    if isinstance(value, str):
        return _IN_URL.sub("//...@", value)
    return value if isinstance(value, (bool, int, float)) else str(value)


def _kind(value: Any) -> str:
    """What comes before the first colon, which is no secret."""
    kind, colon, _ = str(value).partition(":")
    return f"{kind}:..." if colon else kind


def arguments_without_secrets(arguments: Sequence[str]) -> list[str]:
    """The options of a command line, in the same way."""
    shown = []
    secret = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        option = BY_NAME.get(name.removeprefix("--")) if name.startswith("--") else None
        if secret:
            shown.append(_kind(argument))
        elif option is not None and option.secret and equals:
            shown.append(f"{name}={_kind(value)}")
        else:
            shown.append(_IN_URL.sub("//...@", argument))
        secret = option is not None and option.secret and not equals and not secret
    return shown
