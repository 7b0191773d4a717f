"""
What is wrong in the configuration: one class, wherever a setting comes from.
"""

from __future__ import annotations

#: Where a value is: tables, keys and numbers of list entries, from the outside to the inside.
Path = tuple["str | int", ...]


class ConfigError(ValueError):
    """
    A setting cannot be used.

    :param reason: what would be right.
    :param value: what was given; None: the reason contains it, or there is none.
    :param path: where it is, in what the function reads; :meth:`within` adds the path to that.
    :param shown: False: the value at the path is a secret, or the reason is not about a value.
    :param line: of the file, from 1 on, where the path does not lead to it; None: the path does.
    :param column: of the line, from 1 on; None: it is not known.
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
        """The same error, whose path begins with *path*."""
        self.path = (*path, *self.path)
        return self
