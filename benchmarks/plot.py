"""Bar charts in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from report import number

_WIDTH = 680
_LEFT = 150  # of the bars; names stand before them
_RIGHT = 160  # after them; figures stand there, and what failed
_BAR = 16
_GAP = 8
_TITLE = 34
_MARGIN = 12
_OURS, _THEIRS, _SPREAD, _BAD = "#5aa2dc", "#b4bcc4", "#30363c", "#b3261e"
_TEXT, _HINT = "#1f2328", "#5a636b"


@dataclass(frozen=True)
class Bar:
    """
    One server's figure.

    :ivar name: the server's.
    :ivar value: the median.
    :ivar low: the lowest of the rounds.
    :ivar high: the highest.
    :ivar failed: sessions that failed.
    :ivar highlighted: it is the one to look at.
    """

    name: str
    value: float
    low: float
    high: float
    failed: int = 0
    highlighted: bool = False


@dataclass(frozen=True)
class Panel:
    """
    The bars of one figure.

    :ivar title: what it is.
    :ivar hint: its unit, and whether more is better.
    """

    title: str
    hint: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """In pixels."""
        return _TITLE + len(self.bars) * (_BAR + _GAP) + _MARGIN


def draw(panels: Sequence[Panel]) -> str:
    """A picture of *panels*, one below the other."""
    height = sum(panel.height for panel in panels) + _MARGIN
    about = escape("; ".join(panel.title for panel in panels))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"',
        f'     viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{about}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    top = _MARGIN
    for panel in panels:
        lines += _panel(panel, top)
        top += panel.height
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    lines = [
        _text(_MARGIN, top + 14, panel.title, "bold"),
        _text(_WIDTH - _MARGIN, top + 14, panel.hint, anchor="end", fill=_HINT),
    ]
    largest = max((bar.high for bar in panel.bars), default=0) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / largest
    for position, bar in enumerate(panel.bars):
        lines += _bar(bar, top + _TITLE + position * (_BAR + _GAP), scale)
    return lines


def _bar(bar: Bar, top: int, scale: float) -> list[str]:
    base = top + _BAR - 4
    end, high = (_LEFT + scale * value for value in (bar.value, bar.high))
    weight = "bold" if bar.highlighted else "normal"
    fill = _OURS if bar.highlighted else _THEIRS
    after = max(end, high) + 8
    lines = [
        _text(_LEFT - 8, base, bar.name, weight, anchor="end"),
        f'<rect x="{_LEFT}" y="{top}" width="{max(1.0, end - _LEFT):.1f}" height="{_BAR}" fill="{fill}"/>',
        _spread(_LEFT + scale * bar.low, high, top),
        _text(after, base, number(bar.value), weight),
    ]
    if bar.failed:
        lines.append(_text(_WIDTH - _MARGIN, base, f"{bar.failed:,} failed", anchor="end", fill=_BAD))
    return lines


def _spread(low: float, high: float, top: int) -> str:
    """A line from the lowest to the highest, with ends."""
    ends = "".join(f"M{x:.1f} {top + 4}v{_BAR - 8}" for x in (low, high))
    return f'<path d="M{low:.1f} {top + _BAR / 2}H{high:.1f}{ends}" stroke="{_SPREAD}" fill="none"/>'


def _text(
    x: float, y: float, text: str, weight: str = "normal", anchor: str = "start", fill: str = _TEXT
) -> str:
    place = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
