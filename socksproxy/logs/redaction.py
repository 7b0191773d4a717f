"""
What a log may say of the faults of somebody else's code.
"""

from __future__ import annotations

import os
import traceback

from twisted.python.failure import Failure

from ..wire.words import SOCKSError
from .printable import printable


def redacted(failure: Failure) -> str:
    """
    What *failure* is, without a secret.

    What an exception says may hold the password that it is about, but for the system's errors and ours.
    """
    problem = failure.value
    name = type(problem).__name__
    if isinstance(problem, SOCKSError):
        return printable(f"{name}: {problem}")
    if isinstance(problem, OSError) and isinstance(problem.errno, int):
        return f"{name}: {os.strerror(problem.errno)}"
    return name


def code_lines(failure: Failure) -> str:
    """Where *failure* comes from: lines of code, and none of what was in its variables."""
    return "".join(traceback.format_list(traceback.extract_tb(failure.getTracebackObject()))).rstrip()
