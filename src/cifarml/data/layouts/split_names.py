"""Recognition of folders that name a split, such as `train`, `valid` and `Testing`."""

from __future__ import annotations

import enum
import re
from collections import defaultdict
from collections.abc import Collection
from typing import Final

from cifarml.errors import DataError


class Split(enum.Enum):
    """Part of a data set that a folder is for."""

    TRAIN = "training"
    VALIDATION = "validation"
    TEST = "test"
    UNLABELLED = "unlabelled"


SPELLINGS: Final = {
    Split.TRAIN: ("train", "training", "trainval", "trn"),
    Split.VALIDATION: (
        *("val", "valid", "validate", "validation", "dev", "devel", "development"),
        *("eval", "evaluate", "evaluation"),
    ),
    Split.TEST: ("test", "testing", "tst", "holdout"),
}
"""Spellings of splits; case, digits, separators and words such as "set" and "images" beside them are ignored.
"""

_UNLABELLED: Final = frozenset({
    "unlabeled", "unlabelled", "unlabelledimages", "pred", "predict", "prediction", "predictions",
    "unsup", "unsupervised", "submission",
})  # fmt: skip
"""Names of folders without labels; only beside a folder for training, since they can be classes, too."""

_SPLIT_OF: Final = {word: split for split, words in SPELLINGS.items() for word in words}
_FILLER: Final = "set|sets|data|dataset|datasets|image|images|img|imgs|pics?|photo|photos"
_NAME: Final = re.compile(rf"(?:{_FILLER})*?(?P<word>{'|'.join(_SPLIT_OF)})(?:{_FILLER}|split|folder)*")
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def split_of(name: str) -> Split | None:
    """Return the split that a folder's name denotes, or None.

    Example:
        >>> [split_of(name) for name in ("Training_Set", "test1", "valley")]
        [<Split.TRAIN: 'training'>, <Split.TEST: 'test'>, None]
    """
    match = _NAME.fullmatch(_letters(name))
    return _SPLIT_OF[match["word"]] if match else None


def is_filler(name: str) -> bool:
    """Return whether a folder's name says nothing, such as `images`."""
    return re.fullmatch(f"(?:{_FILLER})+", _letters(name)) is not None


def split_level(names: Collection[str]) -> dict[str, Split]:
    """Return the split of each of these sibling folders that denotes one.

    Names with a common rest count, too: `seg_train` and `seg_test` are splits, and so are `cats_train` and
    `cats_val`, but `steam train` and `diesel train` are not.
    """
    found = {name: split for name in names if (split := split_of(name))}
    if not found:
        parts = {name: split_in(name) for name in names}
        splits = {split for split, _ in parts.values()}
        if None not in splits and len(splits) > 1 and len({rest for _, rest in parts.values()}) == 1:
            found = {name: split for name, (split, _) in parts.items() if split}
    if Split.TRAIN in found.values():
        found |= {name: Split.UNLABELLED for name in names if _letters(name) in _UNLABELLED}
    return found


def split_in(name: str) -> tuple[Split | None, str]:
    """Return the split that one word of a name denotes, and the rest of the name without it.

    Example:
        >>> split_in("train_cat")
        (<Split.TRAIN: 'training'>, 'cat')
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    known = [word for word in words if word in _SPLIT_OF or word in _UNLABELLED]
    if len(known) != 1:
        return None, name
    rest = " ".join(word for word in words if word != known[0])
    return _SPLIT_OF.get(known[0], Split.UNLABELLED), rest


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]+", "", name.lower())


def check_no_splits(class_names: Collection[str]) -> None:
    """Raise DataError if names such as `train_cat` and `test_cat` would become classes."""
    by_rest: defaultdict[str, dict[Split, str]] = defaultdict(dict)
    for name in class_names:
        split, rest = split_in(name)
        if split is not None:
            by_rest[rest][split] = name
    for found in by_rest.values():
        if len(found) > 1:
            raise DataError(
                "ambiguous labels: names of splits are not classes. "
                f"Received: {', '.join(map(repr, sorted(found.values())))}",
                "use folders train/CLASS and test/CLASS; see docs/guides/own-images.md",
            )
