"""
On which line of a TOML text each key stands, which ``tomllib`` does not tell.

A light scan of a text that is known to be right: it looks for keys, and skips values. Only :func:`tokens_of`
and :func:`too_deep` are for any text; they take time by its length, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ..values.errors import Path

_TOKEN = re.compile(
    r"""
    (?P<space> [ \t\r]+ | \#[^\n]* )
  | (?P<newline> \n )
  | (?P<string>
        \"{3} (?: \\ (?: . | \Z ) | [^\\] )*? (?: \"{3} (?!\") | \Z )
      | '{3} .*? (?: '{3} (?!') | \Z )
      | " (?: \\ (?: . | \Z ) | [^"\\\n] )* "?
      | ' [^'\n]* '?
    )
  | (?P<mark> [\[\]{},=.] )
  | (?P<bare> [^\s\[\]{},=."'\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|.)")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


class Token(NamedTuple):
    """A word, a string or a mark of a text, and the line it begins on."""

    kind: str
    text: str
    line: int


#: Steps of a path that is looked at; what a configuration takes is far less deep.
_LONGEST = 200
_END = Token("end", "", 0)


def tokens_of(text: str) -> Iterator[Token]:
    """
    What *text* consists of.

    :param text: TOML, valid or not. A string without an end ends where no string can go on.
    """
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind != "space":
            yield Token(kind, match[0], line)
        line += match[0].count("\n")


def too_deep(tokens: Iterable[Token], most: int) -> int | None:
    """The line of the first key with more than *most* parts, between which are dots; None: there is none."""
    dots = 0
    for kind, text, line in tokens:
        if kind == "mark" and text == ".":
            dots += 1
            if dots >= most:
                return line
        elif kind not in ("bare", "string"):
            dots = 0
    return None


def lines_of(tokens: Iterable[Token]) -> dict[Path, int]:
    """
    The line, from 1 on, of each table, key and element of an array.

    :param tokens: of valid TOML.
    """
    scan = _Scan(tokens)
    with suppress(RecursionError):  # what was found is still right
        scan.document()
    return scan.found


class Twice(NamedTuple):
    """
    A table or a key that stands where it does although there is one already.

    :ivar path: of it.
    :ivar first: the line of the one before.
    :ivar line: its own.
    :ivar table: whether it is a table in brackets.
    """

    path: Path
    first: int
    line: int
    table: bool


def first_twice(tokens: Iterable[Token]) -> Twice | None:
    """
    The first table or key of which there is one already.

    :param tokens: of TOML that is valid up to there.
    """
    scan = _Scan(tokens)
    with suppress(RecursionError):
        scan.document()
    return next(iter(scan.twice), None)


class _Scan:
    def __init__(self, tokens: Iterable[Token]) -> None:
        self.found: dict[Path, int] = {}
        self.twice: list[Twice] = []
        self._said: dict[Path, int] = {}
        self._tokens = list(tokens)
        self._at = 0
        self._counts: dict[Path, int] = {}

    def document(self) -> None:
        above: Path = ()
        while (token := self._skip_newlines()) is not _END:
            if token.text == "[" and token.kind == "mark":
                above = self._header()
            else:
                self._pair(above)

    def _header(self) -> Path:
        line = self._next().line
        several = self._peek().text == "["
        if several:
            self._next()
        *parents, last = self._key()
        above: Path = ()
        for name in parents:
            above = self._into((*above, name), line)
        path: Path = (*above, last)
        if several:
            self.found.setdefault(path, line)
            self._counts[path] = self._counts.get(path, 0) + 1
        else:
            self._say(path, line, table=True)
        path = self._into(path, line)
        while self._peek().text == "]":
            self._next()
        return path

    def _into(self, path: Path, line: int) -> Path:
        """*path*, or the last element of it where it is an array of tables."""
        if path in self._counts:
            path = (*path, self._counts[path] - 1)
        self.found.setdefault(path, line)
        return path

    def _say(self, path: Path, line: int, *, table: bool) -> None:
        if path in self._said:
            self.twice.append(Twice(path, self._said[path], line, table))
        self._said.setdefault(path, line)

    def _pair(self, above: Path) -> None:
        line = self._peek().line
        for name in self._key():
            above = (*above, name)
            self.found.setdefault(above, line)
        self._say(above, line, table=False)
        self._next()  # the equals sign
        self._value(above)

    def _key(self) -> list[str]:
        names = [_plain(self._next())]
        while self._peek().text == ".":
            self._next()
            names.append(_plain(self._next()))
        return names

    def _value(self, path: Path) -> None:
        if len(path) > _LONGEST:
            raise RecursionError  # all paths together would take memory by the square of their length
        token = self._peek()
        if token.kind == "mark" and token.text == "[":
            self._array(path)
        elif token.kind == "mark" and token.text == "{":
            self._inline_table(path)
        else:
            self._plain_value()

    def _plain_value(self) -> None:
        while not _ends_value(self._peek()):
            self._next()

    def _array(self, path: Path) -> None:
        self._next()
        number = 0
        while (token := self._skip_newlines()).text not in ("]", ""):
            if token.text == ",":
                self._next()
                continue
            self.found.setdefault((*path, number), token.line)
            self._value((*path, number))
            number += 1
        self._next()

    def _inline_table(self, path: Path) -> None:
        self._next()
        while (token := self._skip_newlines()).text not in ("}", ""):
            if token.text == ",":
                self._next()
                continue
            self._pair(path)
        self._next()

    def _skip_newlines(self) -> Token:
        while self._peek().kind == "newline":
            self._next()
        return self._peek()

    def _peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token


def _ends_value(token: Token) -> bool:
    return token.kind in ("newline", "end") or (token.kind == "mark" and token.text in ",]}")


def _plain(token: Token) -> str:
    """The name that a key says."""
    if token.kind != "string":
        return token.text
    inner = token.text[1:-1]
    return inner if token.text[0] == "'" else _ESCAPE.sub(_unescaped, inner)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _ESCAPED.get(escape, escape)
