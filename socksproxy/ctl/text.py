"""
Text for a terminal: foreign names cannot do anything to it, and tables fit its width.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # to import typing takes half as long as to start Python
    from collections.abc import Sequence

#: The least width of a column that is narrowed.
_LEAST = 6
_GAP = "  "


def escaped(text: str) -> str:
    """*text* with control characters escaped, marks of direction too, and what the output cannot show."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escape(each) for each in text)
    if text.isascii():
        return text
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def width_of(text: str) -> int:
    """The columns of a terminal that *text* takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    from unicodedata import category, east_asian_width

    if category(character) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """*text*, cut where it is wider than *width*; the last character tells that."""
    if width_of(text) <= width and len(text) <= 4 * width:
        return text
    kept, room = [], width - 1
    for character in text[: 4 * width]:  # marks that take no room are not endless
        room -= 1 if character.isascii() else _width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "~" if width > 0 else ""


class Column:
    """
    A column of a table.

    :ivar title: what it has.
    :ivar right: whether its cells stand at the right end.
    :ivar elastic: whether it may be narrower than its cells.
    """

    __slots__ = ("elastic", "right", "title")

    def __init__(self, title: str, right: bool = False, elastic: bool = False) -> None:
        self.title = title
        self.right = right
        self.elastic = elastic


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """
    The lines of a table.

    :param rows: cells; they are escaped here.
    :param width: of the terminal; None: it may be as wide as it is.
    """
    cells = [[column.title for column in columns], *([escaped(cell) for cell in row] for row in rows)]
    widths = [max(width_of(row[place]) for row in cells) for place in range(len(columns))]
    if width is not None:
        _narrow(widths, columns, width - len(_GAP) * (len(columns) - 1))
    lines = []
    for row in cells:
        line = _GAP.join(map(_cell, row, widths, columns)).rstrip()
        lines.append(line if width is None else cut(line, width))
    return lines


def _narrow(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Take from the widest of the elastic columns, until all fit in *width*."""
    elastic = [place for place, column in enumerate(columns) if column.elastic]
    while sum(widths) > width:
        widest = max(elastic, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _LEAST:
            return
        widths[widest] -= 1


def _cell(text: str, width: int, column: Column) -> str:
    text = cut(text, width)
    fill = " " * (width - width_of(text))
    return fill + text if column.right else text + fill


def pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of names and values."""
    width = max(map(len, (name for name, _ in rows)), default=0)
    return [f"{name:<{width}}{_GAP}{escaped(value)}".rstrip() for name, value in rows]


def amount(count: float | None, unit: str = "B") -> str:
    """A number of bytes for people."""
    if count is None:
        return "-"
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 999.5 or prefix == "T":
            digits = 1 if prefix and abs(count) < 99.95 else 0
            return f"{count:.{digits}f} {prefix}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def span(seconds: float | None) -> str:
    """A time of *seconds* for people: its two largest parts."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    for size, name, less, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{name}{whole % size // less:02d}{smaller}"
    return f"{whole}s"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """
    The seconds that *text* means: 90, 90s, 5m, 2h or 1d.

    :raises ValueError: when it means none.
    """
    unit = _UNITS.get(text[-1:], 0)
    number = float(text[:-1] if unit else text)
    if not 0 <= number < 1e9:
        raise ValueError(f"{text}: a time such as 90, 5m or 2h is due")
    return number * (unit or 1)
