"""Images and labels in NumPy arrays: an `.npz` file, or a folder of `.npy` files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from tokenize import TokenError
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cifarml.data.file_tree import FileTree
from cifarml.data.layouts.split_names import Split
from cifarml.data.tables.table import Row, Table, split_named, to_layout
from cifarml.errors import DataError, ImageError
from cifarml.imaging.depth import used_bits
from cifarml.imaging.formats import is_hidden

_IMAGES: Final = frozenset({"x", "image", "images", "img", "imgs", "data", "features", "inputs"})
_LABELS: Final = frozenset({"y", "label", "labels", "target", "targets"})
_NAMES: Final = re.compile(r"(?i)class(?:es|_?names)|(?:label|target)_?names")
_HEADERS: Final[dict[tuple[int, int], Callable[..., Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_HINT: Final = (
    'save them with numpy.savez("images.npz", images=images, labels=labels): images as uint8 of shape '
    "(N, H, W) or (N, H, W, 3), labels of shape (N,)"
)


def is_array(name: str) -> bool:
    """Return whether a file holds an array, by its name."""
    return name.lower().endswith(".npy") and not is_hidden(name)


def read_arrays(tree: FileTree) -> Table:
    """Pair the arrays of images with those of labels, by their names: `x_train` and `y_train`.

    Raises:
        DataError: If an array is damaged, or images and labels do not fit together.
    """
    arrays = {name: name.rpartition("/")[2][:-4] for name in tree.files if is_array(name)}
    images: dict[Split | None, str] = {}
    labels: dict[Split | None, str] = {}
    class_names: list[str] = []
    for name, stem in arrays.items():
        words = set(re.findall(r"[a-z]+", stem.lower()))
        if _NAMES.fullmatch(stem):
            class_names = [str(each) for each in _read_array(tree, name).ravel()]
        elif words & _IMAGES:
            images[split_named(stem)] = name
        elif words & _LABELS:
            labels[split_named(stem)] = name
    if not images and sorted(arrays.values()) == ["arr_0", "arr_1"]:  # numpy.savez without names
        first, second = sorted(arrays)
        images, labels = {None: first}, {None: second}
    if not images or images.keys() != labels.keys():
        raise DataError(
            "expected an array of images and one of labels, or a pair for each split. "
            f"Received: {', '.join(sorted(arrays.values())[:10])}",
            _HINT,
        )
    contents = {split: _check_images(name, _read_array(tree, name)) for split, name in images.items()}
    rows: list[Row] = []
    for split, name in images.items():
        found = _to_labels(labels[split], _read_array(tree, labels[split]), class_names)
        if len(found) != len(contents[split]):
            raise DataError(
                f"{labels[split]} has {len(found):,} labels for the {len(contents[split]):,} images of {name}"
            )
        rows += [Row(f"{arrays[name]}:{i}", label, split) for i, label in enumerate(found)]
    stems = {arrays[name]: contents[split] for split, name in images.items()}
    return Table(ArrayTree(tree, stems), to_layout(rows, class_names))


class ArrayTree(FileTree):
    """Images in arrays, named `ARRAY:NUMBER`, as PPM and PGM files."""

    def __init__(self, tree: FileTree, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.origin = tree.origin
        self.folders = frozenset()
        self._tree, self._arrays = tree, arrays
        self.files = {
            f"{name}:{i}": int(array[0].nbytes) for name, array in arrays.items() for i in range(len(array))
        }

    def read(self, name: str) -> bytes:
        """Return an image as a PGM or PPM file; see `FileTree.read`."""
        stem, _, number = name.rpartition(":")
        image = self._arrays[stem][int(number)]
        if image.ndim == 3 and image.shape[2] == 4:  # PPM has no transparency
            alpha = image[..., 3:].astype(np.uint32)
            image = ((image[..., :3] * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)
        maximum = 255 if image.dtype == np.uint8 else 2 ** used_bits(int(image.max())) - 1
        kind = "P6" if image.ndim == 3 and image.shape[2] == 3 else "P5"
        header = f"{kind} {image.shape[1]} {image.shape[0]} {maximum}\n".encode()
        content: bytes = image.astype(">u2" if maximum > 255 else np.uint8).tobytes()
        return header + content

    def key(self) -> str:
        """Return the key of the files; see `FileTree.key`."""
        return self._tree.key()

    def close(self) -> None:
        """Close the files."""
        self._tree.close()


def _read_array(tree: FileTree, name: str) -> npt.NDArray[Any]:
    """Read an array without pickle, after its size was compared with that in its header."""
    try:
        content = tree.read(name)
        file = io.BytesIO(content)
        shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        if dtype.hasobject:
            raise ValueError("it contains Python objects")
        if math.prod(shape) * dtype.itemsize != len(content) - file.tell() or not math.prod(shape):
            raise ValueError(f"its size does not match its shape {shape}")
        flat = np.frombuffer(content, dtype, offset=file.tell())
        return flat.reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, KeyError, TypeError, OverflowError, SyntaxError, TokenError, ImageError) as error:
        raise DataError(f"{name} can't be read: {error}", _HINT) from error


def _check_images(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return images of shape (N, H, W) or (N, H, W, C)."""
    if array.ndim == 4 and array.shape[3] not in {1, 3, 4} and array.shape[1] in {1, 3, 4}:
        array = array.transpose(0, 2, 3, 1)  # channels first, as in PyTorch
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    has_shape = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in {3, 4})
    if not has_shape or array.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise DataError(
            f"{name} must be images as uint8 or uint16 of shape (N, H, W), (N, H, W, 3) or (N, 3, H, W). "
            f"Received: {array.dtype} {array.shape}",
            _HINT,
        )
    return array


def _to_labels(name: str, array: npt.NDArray[Any], class_names: list[str]) -> list[str]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and ((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all():
        array = array.argmax(axis=1)  # one-hot
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise DataError(
            f"{name} must be integers or strings of shape (N,). Received: {array.dtype} {array.shape}", _HINT
        )
    if array.dtype.kind == "S":
        return [each.decode("utf-8", "backslashreplace") for each in array.tolist()]
    if array.dtype.kind == "U":
        return [str(each) for each in array]
    if class_names and not (array.min() >= 0 and array.max() < len(class_names)):
        raise DataError(
            f"{name}: labels must be 0 to {len(class_names) - 1}. Received: {array.min()}..{array.max()}"
        )
    return [class_names[each] if class_names else str(each) for each in array.tolist()]
