"""Drawing functions for animals."""

from __future__ import annotations

import numpy as np

from cifarml.data.drawn.pen import Paint, Pen, hsv


def bird(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a bird: round body, beak, tail, a wing folded or raised, two thin legs."""
    flying = rng.random() < 0.4
    if flying:
        pen.blob(paint.shade, (0.2, -0.15), (0.12, -0.75), (-0.3, -0.98), (-0.25, -0.1))
    else:
        for x in (-0.05, 0.14):
            pen.line(paint.ink, 0.05, (x, 0.35), (x + 0.03, 0.86), (x + 0.18, 0.88))
    pen.polygon(paint.shade, (-0.35, -0.02), (-1.0, 0.1), (-0.95, 0.4), (-0.3, 0.32))
    pen.polygon(hsv(rng.uniform(0.04, 0.15), 0.9, 0.95), (0.66, -0.5), (1.02, -0.3), (0.62, -0.2))
    pen.blob(
        paint.body,
        (-0.6, 0.1),
        (-0.1, -0.15),
        (0.2, -0.5),
        (0.48, -0.62),
        (0.74, -0.42),
        (0.66, -0.1),
        (0.5, 0.3),
        (0.1, 0.52),
        (-0.35, 0.42),
    )
    pen.blob(paint.light, (0.56, -0.05), (0.46, 0.28), (0.1, 0.46), (0.24, 0.15))
    if flying:
        pen.blob(paint.shade, (0.22, 0.0), (-0.1, -0.5), (-0.7, -0.85), (-0.55, -0.3), (-0.2, 0.2))
    else:
        pen.blob(paint.shade, (0.22, 0.02), (0.1, 0.3), (-0.3, 0.34), (-0.75, 0.3), (-0.3, 0.0))
    pen.disc(paint.white, (0.52, -0.38), 0.1)
    pen.disc(paint.ink, (0.54, -0.38), 0.06)


def cat(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a sitting cat from the front: pointed ears, whiskers, a curled tail."""
    tip = rng.uniform(-0.35, 0.1)
    pen.curve(paint.shade, 0.15, (0.3, 0.82), (0.75, 0.75), (0.82, 0.35), (0.72, tip), (0.92, tip - 0.2))
    pen.blob(
        paint.body, (-0.3, -0.1), (0.3, -0.1), (0.5, 0.5), (0.52, 0.9), (0.0, 0.96), (-0.52, 0.9), (-0.5, 0.5)
    )
    pen.ellipse(paint.light, (0, 0.3), 0.2, 0.28)
    pen.line(paint.shade, 0.05, (-0.2, 0.5), (-0.16, 0.92))
    pen.line(paint.shade, 0.05, (0.2, 0.5), (0.16, 0.92))
    for side in (-1, 1):
        pen.polygon(paint.body, (side * 0.12, -0.72), (side * 0.52, -1.02), (side * 0.54, -0.45))
        pen.polygon(paint.accent, (side * 0.28, -0.74), (side * 0.45, -0.88), (side * 0.46, -0.6))
    pen.ellipse(paint.body, (0, -0.42), 0.56, 0.42)
    for x in (-0.12, 0.0, 0.12):
        pen.line(paint.shade, 0.05, (x, -0.82), (x * 0.8, -0.64))
    pen.ellipse(paint.light, (0, -0.24), 0.24, 0.16)
    eye = hsv(rng.uniform(0.12, 0.4), 0.7, 0.95)
    for side in (-1, 1):
        pen.ellipse(eye, (side * 0.25, -0.48), 0.13, 0.11)
        pen.ellipse(paint.ink, (side * 0.25, -0.48), 0.045, 0.1)
        for y in (-0.3, -0.14):
            pen.line(paint.ink, 0.025, (side * 0.2, -0.24), (side * 0.82, y))
    pen.polygon(paint.ink, (-0.08, -0.33), (0.08, -0.33), (0.0, -0.23))


def dog(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a standing dog: floppy ear, long snout, raised tail, collar."""
    stride, wag = rng.uniform(-0.1, 0.1), rng.uniform(-0.25, 0.15)
    _legs(pen, paint, 0.19, 0.25, 0.82, stride, -0.5, 0.28)
    pen.curve(paint.body, 0.13, (-0.58, 0.05), (-0.82, -0.15), (-0.9 + wag, -0.55))
    pen.blob(
        paint.body,
        (-0.72, 0.1),
        (-0.5, -0.12),
        (0.1, -0.1),
        (0.45, -0.2),
        (0.52, 0.2),
        (0.3, 0.42),
        (-0.3, 0.32),
        (-0.62, 0.42),
    )
    pen.blob(paint.body, (0.1, -0.05), (0.14, -0.5), (0.5, -0.5), (0.55, 0.1))
    pen.line(paint.accent, 0.1, (0.1, -0.2), (0.52, -0.12))
    pen.ellipse(paint.body, (0.38, -0.58), 0.3, 0.27)
    pen.ellipse(paint.light, (0.7, -0.48), 0.28, 0.15, 0.1)
    pen.ellipse(paint.ink, (0.94, -0.54), 0.09, 0.08)
    pen.line(paint.ink, 0.04, (0.9, -0.4), (0.62, -0.38))
    pen.disc(paint.white, (0.5, -0.66), 0.08)
    pen.disc(paint.ink, (0.52, -0.66), 0.055)
    pen.blob(paint.shade, (0.2, -0.82), (0.34, -0.7), (0.26, -0.2), (0.06, -0.12), (0.02, -0.5))


def deer(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a deer: slender legs, upright neck, branching antlers, white tail."""
    stride = rng.uniform(-0.1, 0.1)
    _legs(pen, paint, 0.08, 0.2, 0.98, stride, -0.48, 0.2)
    pen.blob(
        paint.body,
        (-0.68, 0.0),
        (-0.45, -0.14),
        (0.1, -0.08),
        (0.36, -0.1),
        (0.36, 0.16),
        (0.1, 0.3),
        (-0.3, 0.24),
        (-0.58, 0.3),
    )
    pen.ellipse(paint.white, (-0.7, -0.02), 0.12, 0.1, 0.8)
    pen.blob(paint.body, (0.1, 0.1), (0.34, -0.45), (0.5, -0.52), (0.56, -0.38), (0.4, 0.12))
    pen.ellipse(paint.shade, (0.3, -0.52), 0.15, 0.06, 0.3)
    pen.ellipse(paint.body, (0.58, -0.46), 0.2, 0.12, 0.35)
    pen.ellipse(paint.light, (0.72, -0.38), 0.12, 0.08, 0.35)
    pen.disc(paint.ink, (0.82, -0.36), 0.05)
    pen.disc(paint.ink, (0.56, -0.5), 0.05)
    horn = (paint.ink, paint.white, paint.shade)[rng.integers(3)]
    for lean in (-0.16, 0.12):
        pen.line(horn, 0.06, (0.46, -0.55), (0.42 + lean, -0.75), (0.5 + 2 * lean, -1.02))
        pen.line(horn, 0.05, (0.42 + lean, -0.75), (0.3 + 2.2 * lean, -0.88))
        pen.line(horn, 0.05, (0.42 + lean, -0.75), (0.6 + 1.4 * lean, -0.86))
    for x, y in ((-0.4, 0.02), (-0.22, -0.03), (-0.06, 0.06), (-0.28, 0.12)):
        pen.disc(paint.light, (x, y), 0.045)


def horse(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a horse: strong neck, long head, mane and a long tail."""
    stride, nod = rng.uniform(-0.15, 0.15), rng.uniform(-0.08, 0.1)
    hair = (paint.ink, paint.white, paint.accent)[rng.integers(3)]
    _legs(pen, paint, 0.14, 0.2, 0.96, stride, -0.52, 0.26)
    pen.blob(hair, (-0.6, -0.22), (-0.9, -0.12), (-1.04, 0.6), (-0.8, 0.66), (-0.68, 0.25), (-0.6, 0.0))
    pen.blob(
        paint.body,
        (-0.74, 0.0),
        (-0.52, -0.24),
        (-0.1, -0.12),
        (0.3, -0.22),
        (0.48, 0.1),
        (0.26, 0.42),
        (-0.25, 0.4),
        (-0.6, 0.42),
    )
    pen.blob(paint.body, (0.02, -0.1), (0.28, -0.66), (0.46, -0.86), (0.62, -0.7), (0.56, -0.3), (0.46, 0.14))
    pen.polygon(paint.body, (0.4, -0.76), (0.46, -1.02), (0.56, -0.78))
    pen.blob(
        paint.body,
        (0.42, -0.82),
        (0.62, -0.78),
        (0.98, -0.38 + nod),
        (0.94, -0.24 + nod),
        (0.8, -0.24 + nod),
        (0.5, -0.48),
    )
    pen.ellipse(paint.light, (0.9, -0.3 + nod), 0.1, 0.09)
    pen.disc(paint.ink, (0.62, -0.64), 0.06)
    pen.blob(
        hair,
        (0.52, -0.92),
        (0.36, -0.7),
        (0.32, -0.4),
        (0.2, -0.02),
        (-0.06, -0.08),
        (0.04, -0.5),
        (0.28, -0.86),
    )


def _legs(
    pen: Pen, paint: Paint, width: float, top: float, ground: float, stride: float, back: float, front: float
) -> None:
    """Draw four legs with hooves or paws, the far ones shaded."""
    for colour, step in ((paint.shade, stride - 0.1), (paint.body, -stride + 0.06)):
        for hip, way in ((back, 1), (front, -1)):
            foot = hip + step * way
            pen.line(colour, width, (hip, top), ((hip + foot) / 2 - 0.03, (top + ground) / 2), (foot, ground))
            pen.line(paint.ink, width, (foot, ground - 0.06), (foot + 0.01, ground + 0.02))


def frog(pen: Pen, paint: Paint, rng: np.random.Generator) -> None:
    """Draw a squatting frog from the front: bulging eyes, wide mouth, bent legs."""
    gaze = rng.uniform(-0.05, 0.05)
    for side in (-1, 1):
        pen.ellipse(paint.shade, (side * 0.66, 0.42), 0.32, 0.4, side * 0.5)
        pen.polygon(
            paint.shade, (side * 0.5, 0.68), (side * 1.0, 0.86), (side * 0.7, 0.92), (side * 0.3, 0.82)
        )
    pen.blob(
        paint.body,
        (-0.68, 0.0),
        (-0.4, -0.36),
        (0.4, -0.36),
        (0.68, 0.0),
        (0.6, 0.55),
        (0.0, 0.76),
        (-0.6, 0.55),
    )
    pen.ellipse(paint.light, (0, 0.36), 0.42, 0.34)
    for side in (-1, 1):
        pen.line(paint.body, 0.15, (side * 0.42, 0.3), (side * 0.36, 0.8))
        for toe in (0.12, 0.28, 0.46):
            pen.line(paint.body, 0.07, (side * 0.36, 0.78), (side * toe * 1.3, 0.94))
        pen.disc(paint.body, (side * 0.4, -0.44), 0.28)
        pen.disc(paint.white, (side * 0.4, -0.48), 0.19)
        pen.ellipse(paint.ink, (side * 0.4 + gaze, -0.48), 0.11, 0.09)
    pen.curve(paint.ink, 0.06, (-0.52, -0.06), (-0.25, 0.08), (0.25, 0.08), (0.52, -0.06))
    for x, y in ((-0.1, -0.24), (0.12, -0.2), (0.5, 0.14), (-0.52, 0.16)):
        pen.disc(paint.shade, (x, y), 0.06)
