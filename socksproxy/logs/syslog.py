"""
Messages of syslog: RFC 5424, and RFC 3164 for local readers that know nothing else.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable

from twisted.logger import LogLevel

from ..values.logs import LogPlace

#: Severities (RFC 5424, section 6.2.1).
CRITICAL, ERROR, WARNING, INFO, DEBUG = 2, 3, 4, 6, 7

#: The severities of Twisted's levels.
SEVERITIES = {
    LogLevel.critical: CRITICAL,
    LogLevel.error: ERROR,
    LogLevel.warn: WARNING,
    LogLevel.info: INFO,
    LogLevel.debug: DEBUG,
}

#: Gives what stands before a text of a severity, that was made at a time: in seconds since the epoch, and in
#: the form of RFC 3339.
Header = Callable[[int, float, str], str]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def header_for(place: LogPlace, kind: str) -> Header:
    """
    What makes the headers of messages to *place*.

    :param kind: the MSGID of RFC 5424: what the messages are.
    """
    base = place.facility * 8
    if place.old:
        return lambda severity, seconds, when: (
            f"<{base + severity}>{_old_time(seconds)} {place.name}[{os.getpid()}]: "
        )
    # 255 ASCII characters at the most; "-" where there is none.
    host = re.sub("[^!-~]", "", socket.gethostname())[:255] or "-"
    # The process is asked for its number, because a daemon gets another one.
    return lambda severity, seconds, when: (
        f"<{base + severity}>1 {when} {host} {place.name} {os.getpid()} {kind} - "
    )


def _old_time(seconds: float) -> str:
    local = time.localtime(seconds)
    clock = f"{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"
    return f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {clock}"
