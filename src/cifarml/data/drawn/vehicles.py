"""Drawing functions for vehicles."""

from __future__ import annotations

import numpy as np

from cifarml.data.drawn.pen import Paint, Pen, hsv


def airplane(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw an airplane: fuselage, two swept wings, a fin."""
    sweep, span = rng.uniform(-0.1, 0.1), rng.uniform(0.62, 0.85)
    pen.polygon(paint.shade, (0.2, -0.08), (-0.3 + sweep, -span), (-0.5 + sweep, -span), (-0.2, -0.08))
    pen.polygon(paint.accent, (-0.92, -0.05), (-1.02, -0.48), (-0.82, -0.48), (-0.52, -0.08))
    pen.blob(
        paint.body,
        (-0.98, -0.06),
        (-0.5, -0.15),
        (0.4, -0.17),
        (0.85, -0.08),
        (0.98, 0.04),
        (0.6, 0.14),
        (-0.5, 0.1),
    )
    pen.polygon(paint.shade, (-0.65, -0.02), (-1.0, 0.2), (-0.86, 0.22), (-0.45, 0.02))
    pen.polygon(paint.light, (0.22, 0.04), (-0.34 + sweep, span), (-0.56 + sweep, span), (-0.2, 0.04))
    pen.ellipse(paint.shade, (0.06, 0.32), 0.14, 0.06)
    pen.polygon(paint.ink, (0.68, -0.1), (0.82, -0.07), (0.88, -0.01), (0.7, -0.02))
    for x in (-0.4, -0.2, 0.0, 0.2, 0.4):
        pen.disc(paint.ink, (x, -0.07), 0.035)


def automobile(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw an automobile: low body, rounded cabin, two wheels."""
    roof, boot = rng.uniform(-0.58, -0.45), rng.uniform(-0.72, -0.5)
    glass = hsv(0.55, 0.25, rng.uniform(0.3, 0.95))
    pen.ellipse(paint.ink, (0, 0.45), 0.95, 0.06)
    pen.blob(
        paint.body,
        (boot - 0.12, 0),
        (boot + 0.12, roof + 0.05),
        (-0.2, roof - 0.04),
        (0.15, roof + 0.02),
        (0.52, -0.02),
    )
    pen.polygon(glass, (boot + 0.02, -0.1), (boot + 0.18, roof + 0.1), (-0.14, roof + 0.06), (-0.14, -0.1))
    pen.polygon(glass, (-0.06, -0.1), (-0.06, roof + 0.06), (0.13, roof + 0.1), (0.38, -0.1))
    pen.blob(
        paint.body,
        (-0.97, -0.02),
        (-0.5, -0.13),
        (0.4, -0.11),
        (0.88, 0.0),
        (0.98, 0.2),
        (0.9, 0.33),
        (-0.9, 0.33),
        (-1.0, 0.2),
    )
    pen.polygon(paint.shade, (-0.95, 0.22), (0.95, 0.22), (0.9, 0.34), (-0.92, 0.34))
    pen.ellipse(paint.white, (0.88, 0.08), 0.08, 0.06)
    pen.ellipse(paint.accent, (-0.93, 0.07), 0.06, 0.06)
    _wheels(pen, paint, 0.3, 0.2, -0.56, 0.54)


def truck(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a truck: tall box, cab in front, three wheels."""
    top, hood = rng.uniform(-0.78, -0.6), rng.uniform(0.0, 0.18)
    pen.polygon(paint.ink, (-0.95, 0.3), (0.9, 0.3), (0.9, 0.44), (-0.95, 0.44))
    load = (paint.light, paint.accent, paint.white, paint.body)[rng.integers(4)]
    pen.polygon(load, (-1, top), (0.34, top), (0.34, 0.33), (-1, 0.33))
    pen.polygon(paint.shade, (-1, 0.2), (0.34, 0.2), (0.34, 0.33), (-1, 0.33))
    pen.line(paint.shade, 0.05, (-1, top), (0.34, top), (0.34, 0.3))
    pen.polygon(
        paint.body,
        (0.4, -0.36),
        (0.76 - hood, -0.36),
        (0.86 - hood, -0.02),
        (0.98, 0.04),
        (0.98, 0.4),
        (0.4, 0.4),
    )
    glass = hsv(0.55, 0.25, rng.uniform(0.2, 0.95))
    pen.polygon(glass, (0.5, -0.28), (0.72 - hood, -0.28), (0.8 - hood, -0.02), (0.5, -0.02))
    pen.disc(paint.white, (0.93, 0.2), 0.06)
    _wheels(pen, paint, 0.45, 0.18, -0.74, -0.32, 0.66)


def _wheels(pen: Pen, paint: Paint, y: float, radius: float, *places: float) -> None:
    for x in places:
        pen.disc(paint.ink, (x, y), radius)
        pen.disc(paint.white, (x, y), radius * 0.45)


def ship(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a ship in waves, with sails or with a bridge and a funnel."""
    if rng.random() < 0.4:
        pen.line(paint.ink, 0.06, (0.0, -0.98), (0.0, 0.3))
        pen.blob(paint.white, (0.06, -0.9), (0.5, -0.3), (0.72, 0.16), (0.4, 0.2), (0.06, 0.16))
        pen.polygon(paint.accent, (-0.07, -0.8), (-0.07, 0.16), (-0.66, 0.16))
    else:
        pen.line(paint.ink, 0.05, (0.42, -0.75), (0.42, 0.2))
        pen.line(paint.ink, 0.03, (0.42, -0.7), (0.9, 0.15))
        pen.polygon(paint.accent, (-0.3, -0.7), (-0.08, -0.7), (-0.05, -0.2), (-0.33, -0.2))
        pen.polygon(paint.ink, (-0.3, -0.72), (-0.08, -0.72), (-0.07, -0.58), (-0.31, -0.58))
        pen.polygon(paint.white, (-0.62, -0.12), (0.56, -0.12), (0.62, 0.24), (-0.66, 0.24))
        pen.polygon(paint.light, (-0.45, -0.34), (0.22, -0.34), (0.3, -0.1), (-0.48, -0.1))
        for x in (-0.46, -0.2, 0.06, 0.32):
            pen.disc(paint.ink, (x, 0.06), 0.05)
    pen.polygon(paint.body, (-0.96, 0.16), (1.0, 0.12), (0.72, 0.64), (-0.78, 0.64))
    pen.polygon(paint.shade, (-0.87, 0.44), (0.85, 0.44), (0.72, 0.66), (-0.78, 0.66))
    sea = hsv(rng.uniform(0.48, 0.62), rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.9))
    crests = [(x / 5, 0.62 + 0.06 * (-1) ** x) for x in range(-6, 7)]
    pen.curve(sea, 0.12, *crests)
    pen.curve(paint.white, 0.05, *((x, y - 0.06) for x, y in crests))
