"""
What a log may show of exceptions in foreign code.
"""

from __future__ import annotations

import os
import traceback

from twisted.python.failure import Failure

from ..wire.words import SOCKSError
from .printable import printable


def redacted(failure: Failure) -> str:
    """
    A description of *failure* without a secret.

    The text of an exception may have a password in it, except for errors of the system and our own.
    """
    problem = failure.value
    name = type(problem).__name__
    if isinstance(problem, SOCKSError):
        return printable(f"{name}: {problem}")
    if isinstance(problem, OSError) and isinstance(problem.errno, int):
        return f"{name}: {os.strerror(problem.errno)}"
    return name


def code_lines(failure: Failure) -> str:
    """The lines of code where *failure* has happened, without the values of variables."""
    return "".join(traceback.format_list(traceback.extract_tb(failure.getTracebackObject()))).rstrip()
