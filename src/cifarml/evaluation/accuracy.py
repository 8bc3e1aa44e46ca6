"""Accuracy with what it takes to judge it: interval, majority baseline, balanced accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cifarml.data.describe import list_items, shorten
from cifarml.evaluation.statistics import mcnemar_p_value, wilson_interval

UNBALANCED: Final = 1.5
"""Ratio of the largest to the smallest class above which accuracy alone misleads."""
FEW_IMAGES: Final = 20
"""With fewer test images in a class, its recall is known to no better than 20 percentage points."""
_SIGNIFICANT: Final = 0.05


class AccuracyByClass(NamedTuple):
    """Accuracy on labelled images, from the counts of each class.

    Attributes:
        names: The classes.
        num_images: Number of images of each class, at least 1 in total.
        num_right: Number of correctly classified images of each class.
        num_predicted: Number of predictions of each class; empty if unknown.
    """

    names: Sequence[str]
    num_images: Sequence[int]
    num_right: Sequence[int]
    num_predicted: Sequence[int] = ()

    @property
    def share(self) -> float:
        """Accuracy, 0 to 1."""
        return sum(self.num_right) / sum(self.num_images)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy, 0 to 1 (Wilson)."""
        return wilson_interval(sum(self.num_right), sum(self.num_images))

    @property
    def majority_class(self) -> str:
        """Class with the most images; the first of equals."""
        return self.names[max(range(len(self.names)), key=self.num_images.__getitem__)]

    @property
    def majority_baseline(self) -> float:
        """Accuracy of always predicting the class with the most images, 0 to 1."""
        return max(self.num_images) / sum(self.num_images)

    @property
    def majority_p_value(self) -> float:
        """p-value of McNemar's test against always predicting the largest class; 1 if not better."""
        p_value = 0.0
        for images, right in zip(self.num_images, self.num_right, strict=True):
            if images == max(self.num_images):  # among equally large classes, the hardest to beat
                won, lost = sum(self.num_right) - right, images - right
                p_value = max(p_value, mcnemar_p_value(lost, won) if won > lost else 1.0)
        return p_value

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes with images, 0 to 1."""
        pairs = zip(self.num_right, self.num_images, strict=True)
        recalls = [right / images for right, images in pairs if images]
        return sum(recalls) / len(recalls)

    @property
    def never_predicted(self) -> list[str]:
        """Classes that have images, but that the model never predicts; if unknown, never correctly."""
        pairs = zip(self.names, self.num_images, self.num_predicted or self.num_right, strict=True)
        return [name for name, images, predicted in pairs if images and not predicted]

    @property
    def is_unbalanced(self) -> bool:
        """True if accuracy alone misleads, because the class sizes differ."""
        return max(self.num_images) > UNBALANCED * min(filter(None, self.num_images))

    def headline(self, what: str = "Test accuracy", images: str = "image") -> str:
        """Return the accuracy and its interval, in one line.

        Args:
            what: Beginning of the line.
            images: Name of one image, such as ``"test image"``.
        """
        count = sum(self.num_images)
        return (
            f"{what} {self.share:.1%} on {count:,} {images}{'s' * (count != 1)}, "
            f"95 % interval {interval_text(self.interval)}"
        )

    def cautions(self, images: str = "test image") -> list[str]:
        """Return lines on what the accuracy alone would hide; empty in the normal case.

        Args:
            images: Name of one image.
        """
        name, baseline = _quoted(self.majority_class), f"{self.majority_baseline:.1%}"
        lines = []
        if self.is_unbalanced:
            balanced = f"{self.balanced_accuracy:.1%}"
            lines.append(f"Majority baseline {baseline} (always {name}), balanced accuracy {balanced}")
        if self.majority_baseline == 1:  # a single class has images
            pass
        elif self.share <= self.majority_baseline:
            lines.append(f"No better than always predicting {name} ({baseline})")
        elif self.majority_p_value > _SIGNIFICANT:
            lines.append(f"Not significantly better than always predicting {name} ({baseline})")
        untested = [name for name, count in zip(self.names, self.num_images, strict=True) if not count]
        never = "Never predicted" if self.num_predicted else "Never predicted correctly"
        for start, names in ((never, self.never_predicted), (f"Without {images}s", untested)):
            if names:
                end = f", ... ({len(names):,} of {len(self.names):,} classes)"
                lines.append(list_items(f"{start}: ", [*map(shorten, names)], end=end))
        return lines + self._few_images(images)

    def _few_images(self, images: str) -> list[str]:
        """Return a line on the uncertainty of accuracy and recall, if a class has few images."""
        pairs = zip(self.names, self.num_images, strict=True)
        few = {name: count for name, count in pairs if 0 < count < FEW_IMAGES}
        if not few:
            return []
        least, most = min(few.values()), max(few.values())
        number = f"{least}" if least == most else f"{least} to {most}"
        where = f"in {len(few):,} classes"
        if len(few) == 1:
            where = f"of {_quoted(next(iter(few)))}"
        elif len(few) == len(self.names):
            where = "per class"
        recall, accuracy = (
            f"\N{PLUS-MINUS SIGN}{50 * (high - low):.0f}"
            for low, high in (wilson_interval(least / 2, least), self.interval)
        )
        named = f"{images}{'s' * (most > 1)}"
        return [f"Uncertain: {number} {named} {where} (recall {recall} points, accuracy {accuracy})"]

    def to_json(self) -> dict[str, Any]:
        """Return the derived values as plain JSON values."""
        return {
            "accuracy_interval_95": list(self.interval),
            "majority_class": self.majority_class,
            "majority_baseline": self.majority_baseline,
            "majority_p_value": self.majority_p_value,
            "balanced_accuracy": self.balanced_accuracy,
            "never_predicted": self.never_predicted,
        }


def interval_text(interval: tuple[float, float]) -> str:
    """Format an interval of shares, such as ``79.9% to 98.3%``."""
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _quoted(name: str) -> str:
    return f"'{shorten(name)}'"
