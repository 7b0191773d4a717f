"""
Reads the configuration file for the options, and for the commands of ``socksproxy``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import describe
from ..extras import missing
from ..runtime.files import read_regular_file

if TYPE_CHECKING:
    from .file import Configured


class Unreadable(Exception):
    """The file cannot be read; the words are for the operator and begin with its name."""


def content_of(name: str, directory: str = "") -> bytes:
    """
    What is in the file *name* of a configuration.

    :param directory: from where it is named; empty: from where the process is.
    :raises Unreadable: when it cannot be read.
    """
    try:
        from .file import MOST_BYTES
    except ImportError as problem:
        raise Unreadable(f"{name}: {missing('config', problem)}") from None
    try:
        return read_regular_file(os.path.join(directory, name), MOST_BYTES).data
    except OSError as problem:
        raise Unreadable(f"{name}: {describe(problem)}") from None
    except ValueError:
        raise Unreadable(f"{name}: not a path") from None


def read_file(
    name: str,
    content: bytes | None = None,
    directory: str = "",
    node: tuple[bytes, str] | None = None,
) -> tuple[bytes, Configured]:
    """
    What is in a configuration file, and what it says.

    :param name: of the file.
    :param content: what is in it, if that is known already; None: it is read.
    :param directory: from where it and what it names is named; empty: from where the process is.
    :param node: what is in the file of the node, and its name; None: there is none.
    :raises Unreadable: when it cannot be read. Mistakes in it are for the one who asks to tell.
    """
    try:
        from .file import read
    except ImportError as problem:
        raise Unreadable(f"{name}: {missing('config', problem)}") from None
    if content is None:
        content = content_of(name, directory)
    return content, read(content, name, directory, node)
