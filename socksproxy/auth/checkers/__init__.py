"""
The checkers of ``--auth``: a module for each type.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from twisted.cred.strcred import InvalidAuthArgumentString

from ...extras import MODULES, missing


def make_checker(auth_type: str, argument: str) -> Any:
    """
    The checker of ``--auth TYPE:ARGUMENT``.

    :param auth_type: the name of a module of this package that has a function ``make_checker(argument)``.
    :raises InvalidAuthArgumentString: when the argument is wrong, or the packages of the type are missing.
    """
    try:
        module = import_module(f"{__name__}.{auth_type}")
    except ImportError as problem:
        if auth_type not in MODULES:
            raise
        raise InvalidAuthArgumentString(f"{auth_type}: {missing(auth_type, problem)}") from None
    return module.make_checker(argument)
