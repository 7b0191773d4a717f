"""
The access log: one line per session, in a file, in syslog or in the journal.

In a file, a line is one ``write`` to a descriptor opened for appending, so that several processes can share
the file and a reader never sees half a line.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from ..events import FIELDS
from ..values.logs import LogKind, LogPlace, log_place
from .journal import entry
from .sinks import check_socket, sink_for
from .streams import own_descriptor
from .syslog import INFO, header_for

__all__ = ["FORMATS", "AccessLog", "access_observer"]

_PLAIN = r"[!#-<>-\[\]-~]+"
_is_plain = re.compile(_PLAIN).fullmatch
_compact = json.JSONEncoder(separators=(",", ":")).encode
_quote = json.JSONEncoder().encode
_NONE = type(None)
#: So many combinations of kinds of values are remembered; there are a dozen or so.
_SHAPES = 256


class _Timestamp:
    """RFC 3339 times in the local zone; the slow part is done once a second, the rest once a millisecond."""

    def __init__(self) -> None:
        self._millisecond = -1
        self._second = -1
        self._form = ""
        self._text = ""

    def __call__(self, seconds: float) -> str:
        millisecond = int(seconds * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._text = self._spelled(*divmod(millisecond, 1000))
        return self._text

    def _spelled(self, second: int, millisecond: int) -> str:
        if second != self._second:
            self._second = second
            self._form = _form(second)
        return self._form % millisecond


def _form(second: int) -> str:
    local = time.localtime(second)
    minutes = local.tm_gmtoff // 60
    sign = "-" if minutes < 0 else "+"
    hours, minutes = divmod(abs(minutes), 60)
    return (
        f"{local.tm_year:04d}-{local.tm_mon:02d}-{local.tm_mday:02d}T"
        f"{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"
        f".%03d{sign}{hours:02d}:{minutes:02d}"
    )


def _word(value: object) -> str:
    """
    One value of a text line.

    It is ``-`` where there is none, plain where that cannot be misread, and
    a JSON string in double quotes otherwise: no value can pretend to be another field.
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:d}"
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, Mapping):
        return _word(",".join(f"{key}:{count}" for key, count in value.items()) or None)
    text = str(value)
    return text if _is_plain(text) and text != "-" else _quote(text)


def _text_line(when: str, values: Iterable[Any]) -> str:
    words = [f" {field}={_word(value)}" for field, value in zip(FIELDS, values, strict=True)]
    return f"{when}{''.join(words)}\n"


def _json_line(when: str, values: Iterable[Any]) -> str:
    return _compact({"time": when, **dict(zip(FIELDS, values, strict=True))}) + "\n"


class _Shape(NamedTuple):
    """
    How a line looks whose values are of certain kinds.

    :ivar template: is filled in with the time and with what :attr:`present` gives.
    :ivar texts: gives the values that are texts.
    :ivar are_plain: matches the texts, a line each, if all of them are plain.
    :ivar present: gives the values that are not None.
    """

    template: str
    texts: Callable[[tuple[Any, ...]], tuple[str, ...]]
    are_plain: Callable[[str], object]
    present: Callable[[tuple[Any, ...]], tuple[Any, ...]]


class _Lines:
    """
    Makes the lines of one format.

    Strategy: most lines are alike but for plain texts and numbers. What is alike is put
    together once, as a template; one regular expression then looks at all of the texts.

    :param line: makes any line, slowly.
    :param head: the template's beginning.
    :param field: the template's part for a field, which has the field's name and its value's form.
    :param tail: the template's end.
    :param forms: the forms of values, by their kinds.
    """

    def __init__(
        self,
        line: Callable[[str, Iterable[Any]], str],
        head: str,
        field: str,
        tail: str,
        forms: Mapping[type[Any], str],
    ) -> None:
        self._line = line
        self._head = head
        self._field = field
        self._tail = tail
        self._forms = forms
        self._shape = lru_cache(_SHAPES)(self._shape_of)

    def __call__(self, when: str, values: tuple[Any, ...]) -> str:
        """The line of a record with *values*, which was made at *when*."""
        shape = self._shape(tuple(map(type, values)))
        if shape is not None:
            texts = shape.texts(values)
            if shape.are_plain("\n".join(texts)) and "-" not in texts:
                return shape.template % (when, *shape.present(values))
        return self._line(when, values)

    def _shape_of(self, kinds: tuple[type[Any], ...]) -> _Shape | None:
        kinds = tuple(int if issubclass(kind, IntEnum) else kind for kind in kinds)
        texts = [index for index, kind in enumerate(kinds) if kind is str]
        # One alone would not come as a tuple.
        if len(texts) < 2 or not self._forms.keys() >= set(kinds):
            return None
        fields = [
            self._field.format(field, self._forms[kind]) for field, kind in zip(FIELDS, kinds, strict=True)
        ]
        present = [index for index, kind in enumerate(kinds) if kind is not _NONE]
        return _Shape(
            self._head + "".join(fields) + self._tail,
            itemgetter(*texts),
            re.compile("\n".join([_PLAIN] * len(texts))).fullmatch,
            itemgetter(*present),
        )


_as_text = _Lines(_text_line, "%s", " {}={}", "\n", {_NONE: "-", int: "%d", float: "%.6f", str: "%s"})
_as_json = _Lines(
    _json_line, '{"time":"%s"', ',"{}":{}', "}\n", {_NONE: "null", int: "%d", float: "%r", str: '"%s"'}
)

#: The formats of a line by the names that the command line knows.
FORMATS: Mapping[str, Callable[[str, tuple[Any, ...]], str]] = {"text": _as_text, "json": _as_json}


def values_of(event: LogEvent) -> tuple[Any, ...]:
    """The values of the record in *event*, in their order; None for a field that it does not have."""
    return tuple(map(event.get, FIELDS))


@implementer(ILogObserver)
class AccessLog:
    """
    Writes a line per access event to its place.

    A line that cannot be written is lost and the server goes on; a warning says so once a minute
    (:mod:`~socksproxy.logs.sinks`).

    :param path: the file, or another place: see :func:`~socksproxy.values.logs.log_place`. A file is made if
        there is none. It may be ``/dev/stdout``, ``/dev/stderr`` or ``/dev/fd/N``, whatever that is: a
        file, a pipe, a socket or a terminal.
    :param format: a key of :data:`FORMATS`.
    :param clock: seconds that only go forward, for the warnings.
    :param descriptor: the file, if it is open already.
    :param reactor: connects, and has the time for sockets; a file needs none.
    :param tls: verifies the server, where the place is one with TLS.
    :raises OSError: when the file cannot be opened for appending.
    :raises ValueError: when there is no such format, or no such place.
    """

    def __init__(
        self,
        path: str,
        format: str = "text",
        clock: Callable[[], float] = time.monotonic,
        descriptor: int | None = None,
        reactor: Any = None,
        tls: Any = None,
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"{format!r} is none of {', '.join(FORMATS)}")
        self.place = log_place(path)
        self.path = self.place.text
        self.format = format
        line, timestamp = FORMATS[format], _Timestamp()
        self._encode: Callable[[float, tuple[Any, ...]], bytes]
        if self.place.is_file:
            self._encode = lambda seconds, record: line(timestamp(seconds), record).encode("ascii")
        else:
            self._encode = _encoder(self.place, format)
        self._sink = sink_for(self.place, reactor, clock, descriptor, tls)
        self._send = self._sink.write

    @property
    def lost(self) -> int:
        """Lines that could not be written, since the start."""
        return self._sink.losses.total

    def fileno(self) -> int:
        """The descriptor of the open file; -1: it is none."""
        return self._sink.fileno()

    def __call__(self, event: LogEvent) -> None:
        """Write the line of the record in *event*."""
        self.write(values_of(event), event["log_time"])

    def write(self, record: tuple[Any, ...], seconds: float) -> None:
        """
        Write the line of *record*.

        :param record: an :class:`~socksproxy.events.AccessRecord`.
        :param seconds: when it was made, in seconds since the epoch.
        """
        self._send(self._encode(seconds, record))

    def reopen(self) -> str | None:
        """Go on in a new file of the same name: the old one has been moved away. See :meth:`Sink.reopen`."""
        return self._sink.reopen()

    def close(self) -> Deferred[None]:
        """Lines that come later are lost; fires when those before have been sent."""
        return self._sink.close()


def _encoder(place: LogPlace, format: str) -> Callable[[float, tuple[Any, ...]], bytes]:
    """
    What makes the messages for a *place* that is no file.

    The line has no time of its own there as a text, for the message has one.
    """
    line, timestamp = FORMATS[format], _Timestamp()
    header = header_for(place, "access")

    def text_of(seconds: float, record: tuple[Any, ...]) -> str:
        when = timestamp(seconds)
        made = line(when, record)
        return made[len(when) + 1 : -1] if format == "text" else made[:-1]

    def for_syslog(seconds: float, record: tuple[Any, ...]) -> bytes:
        return (header(INFO, seconds, timestamp(seconds)) + text_of(seconds, record)).encode("ascii")

    def for_journal(seconds: float, record: tuple[Any, ...]) -> bytes:
        return entry(place.name, INFO, text_of(seconds, record), zip(FIELDS, record, strict=True))

    return for_journal if place.kind is LogKind.JOURNALD else for_syslog


def check_access_log(path: str) -> None:
    """
    See whether the place of a log could be opened, and do not make the file.

    :param path: the file, or another place.
    :raises OSError: when it could not. A socket that is not there yet may come.
    :raises ValueError: when it is no place.
    """
    place = log_place(path)
    path = place.path
    if not place.is_file:
        check_socket(path)
        return
    own = own_descriptor(path)
    if own is not None:
        os.fstat(own)
        return
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise _no_file(errno.EISDIR, path)
        wanted, there = os.W_OK, path
    except FileNotFoundError:
        wanted, there = os.W_OK | os.X_OK, os.path.dirname(path)
        os.stat(there)
    if not os.access(there, wanted):
        raise _no_file(errno.EACCES, path)


def _no_file(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def access_observer(path: str, format: str = "text") -> AccessLog:
    """
    An observer for ``SOCKSFactory(observer=...)`` that writes a file.

    :param path: the file.
    :param format: ``text`` or ``json``.
    :raises OSError: when the file cannot be opened for appending.
    :raises ValueError: when there is no such format.
    """
    return AccessLog(path, format)
