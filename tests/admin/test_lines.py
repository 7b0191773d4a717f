"""Lines of long answers: see :mod:`socksproxy.admin.lines`."""

from __future__ import annotations

from socksproxy.admin.lines import append_line, lines_of


def test_parts() -> None:
    """Each line is there once, in order, and no part is long but for a long line."""
    lines = [bytes([65 + number % 26]) * (number * 37 % 3000 + 1) for number in range(200)] + [b"x" * 50_000]
    parts: list[bytes] = []
    for line in lines:
        append_line(parts, line)
    assert lines_of(parts) == lines
    assert len(parts) < 20
    assert max(map(len, parts[:-1])) <= 32 << 10
