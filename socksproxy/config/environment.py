"""
Values from the environment: ``${NAME}`` in the keys that take it.

With systemd's ``LoadCredential=`` a file of a secret is ``${CREDENTIALS_DIRECTORY}/NAME``.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ..values.errors import ConfigError
from .readers import text

#: Characters of a variable's value.
MOST_CHARACTERS = 4096
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def expanded(value: Any) -> str:
    """
    Text with the environment's variables in the place of each ``${NAME}``. Other ``$`` stay.

    What a variable holds is not looked at again. Errors have the name of a variable, and never its value.

    :raises ConfigError: when *value* is no text, or a variable is missing or cannot be meant.
    """
    return _VARIABLE.sub(_value_of, text(value))


def _value_of(match: re.Match[str]) -> str:
    name = match[1]
    if not _NAME.fullmatch(name):
        raise ConfigError("${ begins the name of a variable of the environment, as in ${NAME}")
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(f"the environment has no variable {name}, or an empty one")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the variable {name} of the environment is not UTF-8") from None
    if len(value) > MOST_CHARACTERS or "\0" in value or "\n" in value:
        right = f"one line with at most {MOST_CHARACTERS} characters"
        raise ConfigError(f"the variable {name} of the environment is not {right}")
    return value
