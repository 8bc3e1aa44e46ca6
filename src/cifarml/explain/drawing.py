"""Figure of a Grad-CAM explanation: image, heat map and the most probable classes."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from cifarml.explain.gradcam import Explanation
from cifarml.images import ImageLike, decode_image, encode_image, image_size
from cifarml.report.figure import (
    FAINT,
    INK,
    MARGIN,
    QUIET,
    TRAIN,
    ReportFigure,
    axes_at,
    drawable,
    fit,
    percent,
    write,
    write_heading,
)

_SIDE = 2.8
_NAMES = 1.5
_BARS = 1.9
"""Side of an image, width of the class names and width of the bars, in inches."""
_HEAT = "inferno"
_MAX_SIDE = 480
"""Maximum side of the drawn image in pixels; a larger image is scaled down."""


def explanation_figure(explanation: Explanation, image: ImageLike, *, num_classes: int = 5) -> Figure:
    """Draw an image, its Grad-CAM heat map as an overlay, and the most probable classes.

    Args:
        explanation: The result of `cifarml.explain_image`.
        image: The image that was explained, as for `cifarml.explain_image`.
        num_classes: Number of most probable classes to show, at least 1; the explained class is added if it
            is not among them.

    Returns:
        The figure.

    Raises:
        ImageError: If the image can't be read.

    Example:
        ```python
        explanation = cifarml.explain_image("runs/first", "ship.png")
        cifarml.explanation_figure(explanation, "ship.png").savefig("ship_explained.png")
        ```
    """
    file = encode_image(image)  # a file object can be read only once
    pixels = decode_image(file, side=max(32, min(_MAX_SIDE, *image_size(file))))
    shown = explanation.prediction.top(num_classes)
    shown[explanation.class_name] = explanation.prediction.probabilities[explanation.class_name]
    width = MARGIN * 4 + 2 * _SIDE + _NAMES + _BARS + 0.5
    tall = max(_SIDE, 0.3 * len(shown))
    figure = ReportFigure(width, tall + 1.15)
    given = axes_at(figure, MARGIN, MARGIN + tall - _SIDE, _SIDE, _SIDE)
    given.imshow(pixels, interpolation="nearest")
    heated = axes_at(figure, 2 * MARGIN + _SIDE, MARGIN + tall - _SIDE, _SIDE, _SIDE)
    heated.imshow(_overlaid(pixels, explanation.heat), interpolation="nearest")
    for axes in (given, heated):
        axes.set_axis_off()
    _draw_bars(figure, 3 * MARGIN + 2 * _SIDE, tall, shown, explanation.class_name)
    label, share = explanation.prediction.label, percent(explanation.prediction.probability, 1)
    rows, columns = explanation.heat.shape
    name = fit(drawable(explanation.class_name), 10, 3.0)
    if explanation.heat.any():
        meaning = f"Grad-CAM evidence for {name}: brighter means stronger"
    else:
        meaning = f"Grad-CAM found no evidence for {name}"
    meaning += f" ({rows}x{columns} heat map)"
    write_heading(figure, [f"{fit(drawable(label), 15, 6.0)} {share}", meaning])
    return figure


def _overlaid(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the image in grey with the heat map as an overlay: float64, shape (S, S, 3), 0 to 1."""
    side = (image.shape[1], image.shape[0])
    smooth = np.asarray(Image.fromarray(heat).resize(side, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = (image / 255.0 @ np.array([0.299, 0.587, 0.114]))[..., np.newaxis]  # luma, ITU-R BT.601
    opacity = (0.25 + 0.45 * smooth)[..., np.newaxis] if heat.any() else 0.0
    colours = mpl.colormaps[_HEAT](smooth)[..., :3]
    return np.asarray(grey * (1 - opacity) + colours * opacity, np.float64)


def _draw_bars(figure: Figure, left: float, tall: float, shown: dict[str, float], class_name: str) -> None:
    height = 0.3 * len(shown)
    axes = axes_at(figure, left + _NAMES, MARGIN + tall - height, _BARS, height)
    places = np.arange(len(shown))
    axes.barh(places, 1.0, 0.62, color=FAINT)
    axes.barh(places, list(shown.values()), 0.62, color=TRAIN)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_axis_off()
    for place, (name, share) in enumerate(shown.items()):
        weight = "bold" if name == class_name else "normal"
        text = fit(drawable(name), 11, _NAMES - 0.1)
        write(axes, -0.04, place, text, size=10, color=INK, weight=weight, ha="right", va="center")
        write(axes, 1.03, place, percent(share, 1), color=QUIET, va="center")
