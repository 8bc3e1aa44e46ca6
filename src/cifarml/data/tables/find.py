"""Choice of how the images of a source are labelled: by a table, or by their names and folders."""

from __future__ import annotations

from cifarml.data.file_tree import FileTree, Folder
from cifarml.data.ignored import UNLABELLED, find_ignored
from cifarml.data.layout import find_layout
from cifarml.data.recognize import recognize
from cifarml.data.tables.arrays import is_array, read_arrays
from cifarml.data.tables.labels_csv import find_labels
from cifarml.data.tables.parquet import is_parquet, read_parquet
from cifarml.data.tables.table import Table
from cifarml.errors import DataError
from cifarml.imaging.formats import SUFFIXES, is_hidden, suffix_of


def label_images(tree: FileTree, *, coarse: bool = False) -> Table:
    """Find the images of a source and their labels.

    Args:
        tree: The files.
        coarse: Use coarse labels, if the source has fine and coarse ones.

    Returns:
        The images, where to read them from, and the image files that are not read.

    Raises:
        DataError: If there are no labelled images; the message says what was recognized instead.
    """
    has_images = any(suffix_of(name) in SUFFIXES and not is_hidden(name) for name in tree.files)
    try:
        table = _find_table(tree, has_images=has_images, coarse=coarse)
    except DataError as error:
        prefix = "" if error.message.startswith(tree.origin) else f"{tree.origin}: "
        raise DataError(f"{prefix}{error.message}", error.hint) from error
    if table is None:
        try:
            table = Table(tree, find_layout(tree.files, tree.folders))
        except DataError as error:
            raise _explain(tree, error, has_images=has_images) from error
    ignored = find_ignored(tree, table.layout.names) if table.tree is tree else ()
    return table._replace(ignored=(*ignored, *table.ignored))


def _find_table(tree: FileTree, *, has_images: bool, coarse: bool) -> Table | None:
    if has_images:
        return find_labels(tree)
    if any(map(is_parquet, tree.files)):
        return read_parquet(tree, coarse=coarse)
    if any(map(is_array, tree.files)):
        return read_arrays(tree)
    archives = [name for name in tree.files if suffix_of(name) == ".npz" and not is_hidden(name)]
    if len(archives) == 1 and isinstance(tree, Folder):
        from cifarml.data.archives.archive import open_archive

        with open_archive(tree.path(archives[0]), origin=f"{tree.origin}/{archives[0]}") as arrays:
            return read_arrays(arrays)
    return None


def _explain(tree: FileTree, error: DataError, *, has_images: bool) -> DataError:
    """Add what the source contains instead of labelled images to an error about its layout."""
    ignored = [each for each in find_ignored(tree, ()) if each.kind != UNLABELLED]
    known = None if has_images else recognize(tree)
    lines = [*([f"it contains {known.description}"] if known else []), *map(str, ignored)]
    hint = known.hint if known else ignored[0].hint if ignored else error.hint
    return DataError("\n  ".join([f"{tree.origin}: {error.message}", *lines]), hint)
