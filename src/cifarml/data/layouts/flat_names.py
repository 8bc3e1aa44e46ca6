"""Labels in the names of files: `<class>_<number>.png`, as in the article, and `<class>.<number>.jpg`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from cifarml.data.layouts.split_names import split_of
from cifarml.errors import DataError

LAYOUT_HINT: Final = (
    "name the images CLASS_NUMBER.png in one folder, or use a folder for each class, "
    "optionally inside train/ and test/; see docs/guides/own-images.md"
)
_FLAT: Final = re.compile(r"(?P<class_name>.+)_\d+|(?P<dotted>[^\d.]+)\.\d+")
_DATE: Final = re.compile(r"(?<!\d)(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])")
_CAMERA: Final = re.compile(
    r"(?:_?img|_mg|imag|image|cimg|dsc[fn]?|_dsc|dcim|pxl|mvimg|dji|gopr|screen ?shot|whatsapp image)"
    r"(?:[-_ ]?e?\d+)*",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"\d{6,}")


def parse_flat_names(names: Sequence[str]) -> list[str]:
    """Return the class of each image, from its file name.

    Raises:
        DataError: If names contain no label, or look like those of a camera.
    """
    classes = [flat_class(name) for name in names]
    unlabelled = [name for name, class_name in zip(names, classes, strict=True) if not class_name]
    if unlabelled:
        raise DataError(
            f"{len(unlabelled):,} of {len(names):,} images have no label: "
            f"{', '.join(map(repr, unlabelled[:5]))}",
            LAYOUT_HINT,
        )
    camera = [name for name, label in zip(names, classes, strict=True) if _is_from_camera(label)]
    if camera:
        raise DataError(
            f"{len(camera):,} of {len(names):,} images have no label: their names are dates or numbers of a "
            f"camera, not classes: {', '.join(map(repr, camera[:5]))}",
            "move the images of each class into a separate folder; see docs/guides/own-images.md",
        )
    if splits := sorted({label for label in classes if split_of(label)}):
        raise DataError(
            f"the file names contain names of splits, not of classes: {', '.join(map(repr, splits))}",
            LAYOUT_HINT,
        )
    return classes


def flat_class(name: str) -> str:
    """Return the class in a file name, or an empty string.

    Example:
        >>> flat_class("photos/red panda_12.png")
        'red panda'
    """
    base = name.rpartition("/")[2]
    match = _FLAT.fullmatch(base[: base.rfind(".")])
    return unicodedata.normalize("NFC", match["class_name"] or match["dotted"]) if match else ""


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Natural sort key, which orders `cat_2` before `cat_10`."""
    return [(part.isdigit(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _is_from_camera(class_name: str) -> bool:
    return bool(_NUMBER.fullmatch(class_name) or _CAMERA.fullmatch(class_name) or _DATE.search(class_name))
