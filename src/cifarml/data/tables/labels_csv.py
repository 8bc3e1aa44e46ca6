"""Labels in a CSV file beside images, such as `labels.csv` or Kaggle's `trainLabels.csv`."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from cifarml.data.file_tree import FileTree
from cifarml.data.ignored import IgnoredFiles
from cifarml.data.layouts.split_names import Split
from cifarml.data.tables.table import Row, Table, split_named, to_layout
from cifarml.errors import DataError, ImageError
from cifarml.imaging.formats import SUFFIXES, is_hidden, suffix_of

_LABEL_COLUMNS: Final = (
    *("label", "labels", "class", "class_name", "classname", "category", "category_name", "target", "breed"),
    *(
        "species",
        "diagnosis",
        "variety",
        "genre",
        "emotion",
        "fine_label",
        "class_id",
        "classid",
        "label_name",
    ),
)
"""Names of a column with labels, the most telling first."""

_SPLIT_COLUMNS: Final = frozenset({"split", "set", "subset", "partition", "fold_name"})
_MAX_TABLES: Final = 50
_MAX_BYTES: Final = 64 * 2**20


def find_labels(tree: FileTree) -> Table | None:
    """Find CSV files that label images of the source, and read them.

    A column names the images, by path, file name or file name without suffix. Another one, named such as
    `label`, or the only other one, holds the labels. Files for a submission are ignored.

    Returns:
        The labelled images; None if no CSV file labels images.

    Raises:
        DataError: If a CSV file labels an image twice, or it is not clear which column holds the labels.
    """
    tables = [name for name in tree.files if _is_table(name)][:_MAX_TABLES]
    if not tables:
        return None
    images = _Images(name for name in tree.files if suffix_of(name) in SUFFIXES and not is_hidden(name))
    rows: dict[str, Row] = {}
    missing: list[str] = []
    for name in tables:
        for row, found in _read_rows(name, _read(tree, name), images):
            if not found:
                missing.append(row.name)
            elif rows.setdefault(row.name, row).label != row.label:
                raise DataError(
                    f"{name} labels {row.name!r} as {row.label!r} and as {rows[row.name].label!r}",
                    hint="correct one of the labels",
                )
    if 2 * len(rows) <= min(images.count, len(missing) + len(rows)):
        return None
    layout = to_layout([rows[name] for name in tree.files if name in rows])
    if not missing:
        return Table(tree, layout)
    hint = "add the missing files"
    return Table(tree, layout, (IgnoredFiles("label without an image", len(missing), missing[0], hint),))


class _Images:
    """Image files by path, by name and by name without suffix."""

    def __init__(self, names: Iterator[str]) -> None:
        self._found: defaultdict[str, list[str]] = defaultdict(list)
        self.count = 0
        for name in names:
            self.count += 1
            base = name.rpartition("/")[2]
            for key in dict.fromkeys((name, base, base.removesuffix(base[-len(suffix_of(base)) :]))):
                self._found[key].append(name)

    def find(self, key: str, table: str) -> str:
        """Return the image that a table names, of several that in a folder of the table's split, or ""."""
        key = key.strip().replace("\\", "/").removeprefix("./")
        found = self._found.get(key) or self._found.get(f"{PurePosixPath(table).parent}/{key}")
        if not found and "/" in key:
            same = self._found.get(key.rpartition("/")[2], [])  # the path may be that on another machine
            found = [name for name in same if f"/{name}".endswith(f"/{key}")] or same[: len(same) == 1]
        if not found:
            return ""
        wanted = split_named(table.rpartition("/")[2]) or Split.TRAIN
        for split in (wanted, None):
            if of_split := [name for name in found if split_named(*_folders(name)) is split]:
                found = of_split
                break
        return found[0] if len(found) == 1 else ""  # several: the key is not that of an image


def _folders(name: str) -> list[str]:
    """Return the folders around a file, the innermost first."""
    return name.split("/")[-2::-1]


def _is_table(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return base.endswith((".csv", ".tsv")) and not is_hidden(name) and "submission" not in base


def _read(tree: FileTree, name: str) -> list[list[str]]:
    if tree.files[name] > _MAX_BYTES:
        return []
    try:
        text = tree.read(name).decode("utf-8-sig")
        first = text[: text.find("\n")] if "\n" in text else text
        delimiter = max(",;\t", key=first.count)
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except (UnicodeDecodeError, csv.Error, ImageError):
        return []  # not a table


def _read_rows(table: str, lines: list[list[str]], images: _Images) -> Iterator[tuple[Row, bool]]:
    """Yield the rows of a table, with the name of the image and whether it exists."""
    if len(lines) < 2:
        return
    has_header = not any(images.find(cell, table) for cell in lines[0])
    header = [cell.strip().lower().replace(" ", "_") for cell in lines[0]] if has_header else []
    body = lines[1:] if has_header else lines
    name_column = _name_column(table, body[:50], images)
    if name_column < 0:
        return
    label_column = _label_column(table, header, name_column, len(lines[0]))
    if label_column < 0:
        return
    split_column = next((i for i, title in enumerate(header) if title in _SPLIT_COLUMNS), -1)
    for line in body:
        if len(line) <= max(name_column, label_column) or not (label := line[label_column].strip()):
            continue
        image = images.find(line[name_column], table)
        given = [line[split_column]] if 0 <= split_column < len(line) else []
        split = split_named(*given, table.rpartition("/")[2], *_folders(image))
        yield Row(image or line[name_column], label, split), bool(image)


def _name_column(table: str, lines: Sequence[Sequence[str]], images: _Images) -> int:
    """Return the column with most images, or -1."""
    counts = [
        sum(bool(column < len(line) and images.find(line[column], table)) for line in lines)
        for column in range(max(map(len, lines)))
    ]
    best = max(range(len(counts)), key=counts.__getitem__)
    return best if counts[best] > len(lines) // 2 else -1


def _label_column(table: str, header: list[str], name_column: int, num_columns: int) -> int:
    """Return the column with the labels, or -1 if the table has none.

    Raises:
        DataError: If several columns could be.
    """
    others = [column for column in range(num_columns) if column != name_column]
    for title in _LABEL_COLUMNS:
        if found := [column for column in others if header and header[column] == title]:
            return found[0]
    is_named = "label" in table.lower() or "train" in table.lower()
    if len(others) == 1 and (is_named or not header or header[name_column] in {"id", "image", "image_id"}):
        return others[0]
    if "label" in table.lower() and others:
        raise DataError(
            f"{table}: it is not clear which column holds the labels. Received: {', '.join(header)}",
            hint='name the column "label"',
        )
    return -1
