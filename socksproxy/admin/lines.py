"""
Long answers of processes: lines of JSON, in parts that no pipe is blocked by.
"""

from __future__ import annotations

#: Bytes of a part of an answer; one line may be longer.
_PART = 32 << 10


def append_line(parts: list[bytes], line: bytes) -> None:
    """Append a line to the last part, or begin another one."""
    if parts and len(parts[-1]) + len(line) < _PART:
        parts[-1] += b"\n" + line
    else:
        parts.append(line)


def lines_of(parts: list[bytes]) -> list[bytes]:
    """The lines of all *parts*."""
    return [line for part in parts for line in part.split(b"\n")]
