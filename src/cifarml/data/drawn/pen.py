"""Pen and colours for drawing the figures.

Figures face right and use coordinates from -1 to 1, with x to the right and y down. The pen rotates, flips,
scales and moves them into the image.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

_CIRCLE: Final = tuple((math.cos(t * math.pi / 9), math.sin(t * math.pi / 9)) for t in range(18))
_STEPS: Final = tuple(
    (
        ((2 - t) * t - 1) * t / 2,
        (t * t * (3 * t - 5) + 2) / 2,
        (t * (4 - 3 * t) + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    for t in (0.0, 0.25, 0.5, 0.75)
)
"""Weights of four consecutive control points of a Catmull-Rom spline, at four steps."""


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour of a hue (any number, period 1), saturation and value (0 to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class Paint:
    """The colours of one figure."""

    body: Colour
    shade: Colour
    light: Colour
    accent: Colour
    ink: Colour = (22, 20, 24)
    white: Colour = (242, 242, 236)

    @classmethod
    def mix(cls, rng: np.random.Generator, *, backdrop: float) -> Paint:
        """Choose random colours whose body contrasts with the brightness of the backdrop (0 to 255)."""
        hue, value = rng.random(), rng.uniform(0.25, 0.95)
        saturation = rng.choice((0.08, 0.35, 0.6, 0.85))
        for _ in range(8):
            red, green, blue = hsv(hue, saturation, value)
            if abs(0.3 * red + 0.59 * green + 0.11 * blue - backdrop) >= 70:
                break
            hue, value = rng.random(), rng.uniform(0.15, 1.0)
        dimmer = rng.uniform(0.55, 0.72)
        return cls(
            body=hsv(hue, saturation, value),
            shade=hsv(hue, saturation, value * dimmer),
            light=hsv(hue, saturation * 0.45, 1 - (1 - value) * 0.5),
            accent=hsv(rng.random(), 0.75, rng.uniform(0.6, 1.0)),
        )


class Pen:
    """Draws shapes in figure coordinates, mapped onto a square image by an affine transformation.

    Args:
        draw: What to draw on.
        size: Side of the image in pixels.
        angle: Rotation in radians.
        flip: Mirror the figure horizontally.
        stretch: Width and height of the figure, 1 for the whole image.
        shift: Position of its centre, (0, 0) for the centre of the image.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, size: int, *, angle: float, flip: bool, stretch: Point, shift: Point
    ) -> None:
        self._draw = draw
        half = size / 2
        width, height = stretch[0] * half * (-1 if flip else 1), stretch[1] * half
        cos, sin = math.cos(angle), math.sin(angle)
        self._map = (cos * width, -sin * height, (1 + shift[0]) * half)
        self._map_y = (sin * width, cos * height, (1 + shift[1]) * half)
        self._unit = (abs(width) + height) / 2

    def polygon(self, colour: Colour, *points: Point) -> None:
        """Fill a polygon with these corners."""
        self._draw.polygon(self._place(points), fill=colour)

    def blob(self, colour: Colour, *points: Point) -> None:
        """Fill a smooth closed curve through these points."""
        self._draw.polygon(self._place(_smooth([points[-1], *points, points[0], points[1]])), fill=colour)

    def ellipse(self, colour: Colour, centre: Point, width: float, height: float, tilt: float = 0.0) -> None:
        """Fill an ellipse with these semi-axes, rotated by `tilt` radians."""
        cos, sin = math.cos(tilt), math.sin(tilt)
        x, y = centre
        xx, xy, yx, yy = width * cos, -height * sin, width * sin, height * cos
        self._draw.polygon(
            self._place([(x + xx * u + xy * v, y + yx * u + yy * v) for u, v in _CIRCLE]), fill=colour
        )

    def disc(self, colour: Colour, centre: Point, radius: float) -> None:
        """Fill a circle."""
        self.ellipse(colour, centre, radius, radius)

    def line(self, colour: Colour, width: float, *points: Point) -> None:
        """Draw straight segments between these points."""
        self._draw.line(
            self._place(points), fill=colour, width=max(1, round(width * self._unit)), joint="curve"
        )

    def curve(self, colour: Colour, width: float, *points: Point) -> None:
        """Draw a smooth curve through these points."""
        self.line(colour, width, *_smooth([points[0], *points, points[-1]]), points[-1])

    def _place(self, points: Sequence[Point]) -> list[Point]:
        (a, b, c), (d, e, f) = self._map, self._map_y
        return [(a * x + b * y + c, d * x + e * y + f) for x, y in points]


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Interpolate a Catmull-Rom spline from the second point to the second last."""
    quads = zip(points, points[1:], points[2:], points[3:], strict=False)
    return [
        (k * p[0] + m * q[0] + n * r[0] + o * s[0], k * p[1] + m * q[1] + n * r[1] + o * s[1])
        for p, q, r, s in quads
        for k, m, n, o in _STEPS
    ]


Figure = Callable[[Pen, Paint, np.random.Generator], None]
