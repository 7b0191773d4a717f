"""
The error for a wrong setting, from the command line, the file or Python.
"""

from __future__ import annotations

#: The place of a value: tables, keys and numbers of list entries, from the outside to the inside.
Path = tuple["str | int", ...]


class ConfigError(ValueError):
    """
    A setting cannot be used.

    :param reason: the message: why the value is wrong, or what it should be.
    :param value: the wrong value; None: the reason contains it, or there is none.
    :param path: the place of the value within the part that the raising function reads. :meth:`within` puts
        the path of that part before it.
    :param shown: False: the value at the path is a secret, or the reason is not about a value.
    :param line: the line in the file, from 1 on, where the path does not lead to it; None: the path does.
    :param column: the column in the line, from 1 on; None: it is not known.
    """

    def __init__(
        self,
        reason: str,
        value: object = None,
        *,
        path: Path = (),
        shown: bool = True,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value
        self.path = path
        self.shown = shown
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return self.reason if self.value is None else f"{self.value}: {self.reason}"

    def within(self, path: Path) -> ConfigError:
        """This error, after *path* was put before its own path."""
        self.path = (*path, *self.path)
        return self
