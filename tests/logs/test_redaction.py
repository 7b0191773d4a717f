"""What a log may show of exceptions in foreign code: see :mod:`socksproxy.logs.redaction`."""

from __future__ import annotations

import errno

import pytest
from twisted.python.failure import Failure

from socksproxy.errors import NotAllowed
from socksproxy.logs.redaction import code_lines, redacted


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (ValueError("secret"), "ValueError"),
        (OSError("secret"), "OSError"),
        (OSError(errno.ENOENT, "secret", "/secret"), "FileNotFoundError: No such file or directory"),
        (NotAllowed("denied\n"), "NotAllowed: denied\\n"),
    ],
)
def test_redacted(problem: Exception, shown: str) -> None:
    assert redacted(Failure(problem)) == shown


def fails(password: str) -> None:
    raise ValueError(password)


def test_code_lines() -> None:
    """The place is shown, and no value of a variable."""
    try:
        fails("sec" + "ret")
    except ValueError:
        lines = code_lines(Failure())
    assert "in fails" in lines
    assert "secret" not in lines
