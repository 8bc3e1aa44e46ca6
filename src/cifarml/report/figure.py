"""Helpers for matplotlib figures without pyplot, with class names of any length and script."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

INK = "#222222"
QUIET = "#6B6B6B"
FAINT = "#E3E3E3"
TRAIN = "#0072B2"
MARGIN = 0.25
"""Margin around a figure in inches."""
LINE = 0.25
"""Line height of a heading in inches."""
FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Malgun Gothic",
    "Yu Gothic", "WenQuanYi Micro Hei", "Arial Unicode MS", "Noto Sans Devanagari", "Nirmala UI",
    "Noto Sans Thai", "Leelawadee UI", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Emoji", "Symbola",
)  # fmt: skip
"""The first is bundled with matplotlib; the others are fallbacks for missing glyphs, if installed."""


class ReportFigure(Figure):
    """White figure, size in inches, that a notebook displays even without `%matplotlib inline`."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), facecolor="white")

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a position and size in inches."""
    wide, tall = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))


def style_axes(axes: Axes, *, grid: bool = True) -> None:
    """Hide all spines except the bottom one and, optionally, draw horizontal grid lines."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(visible=False)
    if grid:
        axes.grid(visible=True, axis="y", color=FAINT, linewidth=0.8)
    axes.tick_params(colors=QUIET, labelsize=9, length=0, labelfontfamily=FONTS[0])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)


def write_heading(figure: Figure, lines: Sequence[str]) -> None:
    """Write the heading of a figure: a bold first line and grey lines below."""
    wide, tall = figure.get_size_inches()
    for index, line in enumerate(lines):
        size, color, weight = (10, QUIET, "normal") if index else (13, INK, "bold")
        text = fit(drawable(line), size if index else size * 1.15, wide - 2 * MARGIN)
        place = (MARGIN / wide, 1 - (MARGIN + LINE * index) / tall)
        write(figure, *place, text, size=size, color=color, weight=weight, va="center")


def write(
    where: Axes | Figure, x: float, y: float, text: str, *, size: float = 9, color: str = INK,
    weight: str = "normal", **settings: Any,
) -> None:  # fmt: skip
    """Write literal text, without mathtext or TeX and with fonts independent of matplotlib's settings."""
    font = FontProperties(family=list(_font_families()), size=size, weight=weight)
    where.text(x, y, text, fontproperties=font, color=color, parse_math=False, usetex=False, **settings)


@lru_cache(maxsize=1)
def _font_families() -> tuple[str, ...]:
    installed = set(fontManager.get_font_names())
    return tuple(name for name in FONTS if name == FONTS[0] or name in installed)


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, ...]:
    return tuple(findfont(FontProperties(family=[name])) for name in _font_families())


@lru_cache(maxsize=1)
def _known_characters() -> frozenset[int]:
    return frozenset(code for file in _font_files() for code in get_font(file).get_charmap())


def drawable(text: str) -> str:
    """Return the text on one line, with a hollow box for each character without a glyph."""
    known = _known_characters()
    return "".join(sign if ord(sign) in known else "▯" for sign in " ".join(text.split()))


def drawable_names(names: Iterable[str]) -> list[str]:
    """Make class names drawable, adding the class number to names with missing glyphs."""
    shown = []
    for index, name in enumerate(names):
        text = drawable(name)
        shown.append(text if text.count("▯") == name.count("▯") else f"#{index} {text}")
    return shown


def text_width(text: str, size: float) -> float:
    """Return the width of a string in inches."""
    font = get_font(list(_font_files()))
    font.set_size(size, 72)
    font.set_text(text)
    return font.get_width_height()[0] / 64 / 72


def fit(text: str, size: float, room: float) -> str:
    """Shorten a string in the middle so that it is at most `room` inches wide."""
    if text_width(text, size) <= room:
        return text
    shortest, longest = 0, min(len(text) - 1, 200)
    while shortest < longest:
        length = (shortest + longest + 1) // 2
        if text_width(_shortened(text, length), size) <= room:
            shortest = length
        else:
            longest = length - 1
    return _shortened(text, shortest)


def _shortened(text: str, length: int) -> str:
    tail = length * 2 // 5
    return text[: length - tail].rstrip() + "…" + text[len(text) - tail :].lstrip()


def percent(share: float, digits: int = 0) -> str:
    """Format a share of 1 as a percentage."""
    return f"{100 * share:.{digits}f} %"


def counted(count: int) -> str:
    """Format a number of images."""
    return f"{count:,} image{'' if count == 1 else 's'}"
