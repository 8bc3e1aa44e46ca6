"""Hugging Face data sets in Parquet: a struct `image` with bytes and path, and a column `label`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cifarml.data.file_tree import FileTree
from cifarml.data.tables.table import Row, Table, split_named, to_layout
from cifarml.errors import DataError, ImageError
from cifarml.extras import explain_missing_extra
from cifarml.imaging.formats import is_hidden

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_LABELS: Final = ("label", "labels", "fine_label", "class", "target", "category")
_MAX_GROUP_BYTES: Final = 2 * 2**30
_MAX_ROWS: Final = 10_000_000


class _Columns(NamedTuple):
    """Names of the columns with images and labels, and the names of the classes by number."""

    image: str
    is_struct: bool
    label: str
    class_names: tuple[str, ...]


def is_parquet(name: str) -> bool:
    """Return whether a file is in Parquet format, by its name."""
    return name.lower().endswith(".parquet") and not is_hidden(name)


def read_parquet(tree: FileTree, *, coarse: bool = False) -> Table:
    """Read the labels of all Parquet files of a source.

    Test and validation images are those in files whose name, or folder, says so, such as
    `test-00000-of-00001.parquet`.

    Args:
        tree: The files.
        coarse: Use the column `coarse_label`, as in CIFAR-100.

    Raises:
        DataError: If a file is damaged, or has no images or labels.
        SettingsError: If the extra `parquet` is not installed.
    """
    images = ParquetTree(tree)
    rows: list[Row] = []
    class_names: tuple[str, ...] = ()
    for name in sorted(filter(is_parquet, tree.files)):
        columns, labels = images.add(name, coarse=coarse)
        if class_names and columns.class_names != class_names:
            raise DataError(f"{tree.origin}: {name} has other classes than the files before it")
        class_names = columns.class_names
        split = split_named(*reversed(name.split("/")))
        rows += [Row(f"{name}:{i}", label, split) for i, label in enumerate(labels) if label]
    return Table(images, to_layout(rows, class_names))


class ParquetTree(FileTree):
    """The images in the Parquet files of a source, named `FILE:ROW`; they are read fastest in order."""

    def __init__(self, tree: FileTree) -> None:
        self.origin = tree.origin
        self.files: dict[str, int] = {}
        self.folders = frozenset()
        self._tree = tree
        self._columns: dict[str, _Columns] = {}
        self._open_name = ""
        self._file: Any = None
        self._group: tuple[str, int] = "", -1
        self._first = 0
        self._values: list[Any] = []

    def add(self, name: str, *, coarse: bool) -> tuple[_Columns, list[str]]:
        """Add the images of a file, and return its columns and the label of each row ("" if it has none)."""
        with _damaged(f"{self.origin}: {name}"):
            file = self._open(name)
            if file.metadata.num_rows > _MAX_ROWS:
                raise DataError(f"more than {_MAX_ROWS:,} rows")
            columns = self._columns[name] = _find_columns(file, coarse=coarse)
            values = file.read(columns=[columns.label])[columns.label].to_pylist()
            size = self._tree.files[name] // max(1, len(values))
            self.files |= {f"{name}:{row}": size for row in range(len(values))}
            return columns, [_to_label(value, columns.class_names) for value in values]

    def _open(self, name: str) -> pq.ParquetFile:
        if self._open_name != name:
            with explain_missing_extra():
                import pyarrow as pa
                import pyarrow.parquet as pq
            self._file = pq.ParquetFile(pa.BufferReader(self._tree.read(name)))
            self._open_name = name
        return self._file

    def read(self, name: str) -> bytes:
        """Return the content of an image; see `FileTree.read`."""
        path, _, row = name.rpartition(":")
        try:
            with _damaged("damaged"):
                self._read_group(path, int(row))
        except DataError as error:
            raise ImageError(error.message) from error
        value = self._values[int(row) - self._first]
        if not isinstance(value, bytes):
            raise ImageError("the Parquet file names the image but does not contain it")
        return value

    def _read_group(self, path: str, row: int) -> None:
        """Read the images of the row group with this row, unless they are in memory."""
        if self._group[0] == path and 0 <= row - self._first < len(self._values):
            return
        file, columns = self._open(path), self._columns[path]
        first = 0
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            if row < first + group.num_rows:
                break
            first += group.num_rows
        if group.total_byte_size > _MAX_GROUP_BYTES:
            raise DataError(f"a row group has more than {_MAX_GROUP_BYTES:,} bytes")
        names = [f"{columns.image}.bytes"] if columns.is_struct else [columns.image]
        values = file.read_row_group(number, columns=names)[columns.image].to_pylist()
        self._values = [value.get("bytes") if isinstance(value, dict) else value for value in values]
        self._group, self._first = (path, number), first

    def key(self) -> str:
        """Return the key of the files; see `FileTree.key`."""
        return self._tree.key()

    def close(self) -> None:
        """Close the files."""
        self._values = []
        self._tree.close()


@contextmanager
def _damaged(where: str) -> Iterator[None]:
    """Translate the errors of pyarrow, which stand for damaged files."""
    with explain_missing_extra():
        import pyarrow as pa
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, ImageError) as error:
        raise DataError(f"{where}: damaged Parquet file: {error}") from error
    except DataError as error:
        raise DataError(f"{where}: {error.message}", error.hint) from error


def _find_columns(file: pq.ParquetFile, *, coarse: bool) -> _Columns:
    import pyarrow as pa

    schema = file.schema_arrow
    features = _features(schema.metadata or {})
    structs = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    binaries = [field.name for field in schema if _is_binary(field.type)]
    image = next(iter(structs or binaries), None)
    classes = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    wanted = ("coarse_label",) if coarse else (*_LABELS, *classes)
    label = next((name for name in wanted if name in schema.names), None)
    if image is None or label is None:
        missing = "images" if image is None else "labels"
        raise DataError(
            f"no column with {missing}. Received: {', '.join(schema.names[:10])}",
            hint="it needs a struct image (bytes, path) and a column label, as Hugging Face writes them",
        )
    names = features.get(label, {}).get("names", ())
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        names = ()
    return _Columns(image, bool(structs), label, tuple(names))


def _features(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the features that Hugging Face's library stores in the schema."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    valid = isinstance(found, dict) and all(isinstance(each, dict) for each in found.values())
    return found if valid else {}


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _to_label(value: object, class_names: tuple[str, ...]) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if class_names:
            return class_names[value] if 0 <= value < len(class_names) else ""  # -1: not labelled
        return str(value) if value >= 0 else ""
    return value if isinstance(value, str) else ""
