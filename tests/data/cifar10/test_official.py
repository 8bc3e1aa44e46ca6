"""Loading of the official CIFAR-10 archives, and rejection of invalid and hostile pickles."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cifarml import load_dataset
from cifarml.data.check import check_source
from cifarml.data.cifar10.official import is_official
from cifarml.data.cifar10.safe_pickle import load_arrays
from cifarml.errors import DataError
from cifarml.progress import Progress
from tests.image_files import WRITERS

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_BATCH = 12
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]

Images = npt.NDArray[np.uint8]


class Python2:
    """Pickle writer with the output of Python 2 for protocol 2, whose strings Python 3 can't write."""

    def __init__(self, first_memo_index: int = 0) -> None:
        self.out = io.BytesIO()
        self.memo = first_memo_index

    def write(self, value: object) -> None:
        match value:
            case None:
                self.out.write(b"N")
            case bool():
                self.out.write(b"\x88" if value else b"\x89")
            case int():
                self.out.write(self.number(value))
            case bytes():
                self.out.write(
                    b"U" + struct.pack("<B", len(value))
                    if len(value) < 256
                    else b"T" + struct.pack("<i", len(value))
                )
                self.out.write(value)
                self.remember()
            case tuple():
                self.out.write(b"(" if len(value) > 3 else b"")
                for item in value:
                    self.write(item)
                self.out.write({0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(value), b"t"))
                self.remember()
            case list():
                self.collection(b"]", b"e", value)
            case dict():
                self.collection(b"}", b"u", [part for pair in value.items() for part in pair])
            case np.ndarray():
                self.array(value, value.tobytes("A"))
            case _:
                raise TypeError(value)

    def number(self, value: int) -> bytes:
        for code, form, limit in ((b"K", "<B", 256), (b"M", "<H", 65536)):
            if 0 <= value < limit:
                return code + struct.pack(form, value)
        return b"J" + struct.pack("<i", value)

    def collection(self, start: bytes, end: bytes, items: Sequence[object]) -> None:
        self.out.write(start)
        self.remember()
        for i in range(0, len(items), 1000):
            self.out.write(b"(")
            for item in items[i : i + 1000]:
                self.write(item)
            self.out.write(end)

    def remember(self) -> None:
        self.out.write(
            b"q" + struct.pack("<B", self.memo) if self.memo < 256 else b"r" + struct.pack("<I", self.memo)
        )
        self.memo += 1

    def name(self, module: str, name: str) -> None:
        self.out.write(f"c{module}\n{name}\n".encode())
        self.remember()

    def array(self, array: npt.NDArray[np.generic], content: object) -> None:
        self.name("numpy.core.multiarray", "_reconstruct")
        self.out.write(b"(")
        self.name("numpy", "ndarray")
        self.write((0,))
        self.write(b"b")
        self.out.write(b"t")
        self.remember()
        self.out.write(b"R")
        self.remember()
        self.out.write(b"(")
        self.write(1)
        self.write(array.shape)
        self.name("numpy", "dtype")
        self.write((array.dtype.str[1:].encode(), 0, 1))
        self.out.write(b"R")
        self.remember()
        self.write((3, array.dtype.str[:1].encode(), None, None, None, -1, -1, 0))
        self.out.write(b"b")
        self.write(not array.flags.c_contiguous)
        self.write(content)
        self.out.write(b"tb")


def python2(value: object, first_memo_index: int = 0) -> bytes:
    writer = Python2(first_memo_index)
    writer.out.write(b"\x80\x02")
    writer.write(value)
    return writer.out.getvalue() + b"."


def numbers(name: str) -> tuple[Images, list[int]]:
    """Return images (N, 32, 32, 3) and labels, different for each batch."""
    rng = np.random.default_rng(list(name.encode()))
    images = rng.integers(0, 256, (PER_BATCH, 32, 32, 3), np.uint8)
    return images, [i % 10 for i in range(PER_BATCH)]


def planes(images: Images) -> Images:
    """Return images in the official format: all red values, row by row, then all green, then all blue."""
    return np.stack(
        [np.concatenate([image[:, :, channel].ravel() for channel in range(3)]) for image in images]
    )


def batch(name: str) -> dict[bytes, object]:
    images, labels = numbers(name)
    files = [f"{CLASSES[label]}_s_{i:06}.png".encode() for i, label in enumerate(labels)]
    return {b"batch_label": b"x" * 300, b"labels": labels, b"data": planes(images), b"filenames": files}


META: dict[bytes, object] = {
    b"num_cases_per_batch": 10_000,
    b"label_names": [name.encode() for name in CLASSES],
    b"num_vis": 3072,
}


def python_version(dump: str = "python 2") -> dict[str, bytes]:
    def write(value: dict[bytes, object]) -> bytes:
        return python2(value) if dump == "python 2" else pickle.dumps(value, protocol=int(dump[-1]))

    files = {name: write(batch(name)) for name in BATCHES}
    return files | {"batches.meta": write(META), "readme.html": b"<html>"}


def binary_version() -> dict[str, bytes]:
    files = {}
    for name in BATCHES:
        images, labels = numbers(name)
        rows = zip(labels, planes(images), strict=True)
        files[f"{name}.bin"] = b"".join(bytes([label]) + row.tobytes() for label, row in rows)
    return files | {"batches.meta.txt": ("\n".join(CLASSES) + "\n\n").encode()}


def test_python2_writer() -> None:
    plain: list[object] = [1, 255, 256, -1, 70_000, None, True, False, (), (1,), (1, 2, 3, 4), {}]
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    read = pickle.loads(python2({b"a" * 300: plain, b"b": array, b"c": array.T}), encoding="latin1")
    assert read["a" * 300] == plain
    assert np.array_equal(read["b"], array)
    assert np.array_equal(read["c"], array.T)


@pytest.mark.parametrize("container", list(WRITERS))
@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py/", "my data/cifar/"])
@pytest.mark.parametrize("version", ["python 2", "python 3", "python 4", "binary"])
def test_pixels_labels_and_split(tmp_path: Path, container: str, folder: str, version: str) -> None:
    files = binary_version() if version == "binary" else python_version(version)
    steps: list[Progress] = []
    path = WRITERS[container](
        tmp_path / container, {folder + name: content for name, content in files.items()}
    )
    dataset = load_dataset(path, on_progress=steps.append)
    assert np.array_equal(dataset.images, np.concatenate([numbers(name)[0] for name in BATCHES]))
    assert dataset.labels.tolist() == [label for name in BATCHES for label in numbers(name)[1]]
    assert dataset.class_names == CLASSES
    assert dataset.is_test.tolist() == [False] * 5 * PER_BATCH + [True] * PER_BATCH
    suffix, first = (".bin", "0") if version == "binary" else ("", "airplane_s_000000.png")
    assert dataset.sources[PER_BATCH] == f"{folder}data_batch_2{suffix}/{first}"
    assert (steps[-1].done, steps[-1].total) == (6 * PER_BATCH, 6 * PER_BATCH)
    assert [step.total for step in steps[:-1]] == [None] * 5


def test_python_and_binary_version_have_the_same_fingerprint(tmp_path: Path) -> None:
    versions = {"py": python_version(), "bin": binary_version()}
    prints = {
        load_dataset(WRITERS["folder"](tmp_path / name, files)).fingerprint
        for name, files in versions.items()
    }
    assert len(prints) == 1


def changed(**changes: object) -> bytes:
    value = batch("data_batch_1") | {key.encode(): value for key, value in changes.items()}
    return python2({key: item for key, item in value.items() if item is not ...})


def loads(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    load_dataset(WRITERS["folder"](tmp_path / "data", files))


def test_last_tenth_is_test_set_without_test_batch(tmp_path: Path) -> None:
    files = {name: content for name, content in python_version().items() if name != "test_batch"}
    dataset = load_dataset(WRITERS["folder"](tmp_path / "data", files))
    assert np.bincount(dataset.labels[dataset.is_test]).tolist() == [1] * 10
    assert len(dataset) == 5 * PER_BATCH


@pytest.mark.parametrize("names", [..., [], [b"one"], 5, b"text", {}, None, [[[]]] * PER_BATCH])
def test_file_names_are_optional(tmp_path: Path, names: object) -> None:
    dataset = load_dataset(
        WRITERS["folder"](tmp_path / "data", python_version() | {"data_batch_1": changed(filenames=names)})
    )
    assert len(dataset) == 6 * PER_BATCH


IMAGES, LABELS = numbers("data_batch_1")
ROWS = planes(IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(labels=...), "requires 'data' and 'labels'"),
        (changed(data=...), "requires 'data' and 'labels'"),
        (changed(labels=LABELS[:-1]), "11 labels, 12 images"),
        (changed(labels=[]), "0 labels, 12 images"),
        (changed(data=ROWS[:0]), "12 labels, 0 images"),
        (changed(data=ROWS[:5]), "12 labels, 5 images"),
        (changed(labels=[-1] * 12), "labels must be integers"),
        (changed(labels=[b"1"] * 12), "labels must be integers"),
        (changed(labels=[10] * 12), "labels must be in 0..9"),
        (changed(labels=(1, 2)), "requires 'data' and 'labels'"),
        (changed(data=[1, 2]), "uint8 array"),
        (changed(data=ROWS.astype(np.int16)), "uint8 array"),
        (changed(data=ROWS.astype(np.float64)), "uint8 array"),
        (changed(data=ROWS.view(np.int8)), "uint8 array"),
        (changed(data=np.asfortranarray(ROWS)), "uint8 array"),
        (changed(data=IMAGES), "uint8 array"),
        (changed(data=ROWS[:, :3071].copy()), "uint8 array"),
        (changed(data=ROWS.ravel()), "uint8 array"),
        (python2([1, 2]), "must be a dict"),
        (python2(b"text"), "must be a dict"),
        (b"", "not a CIFAR-10 batch"),
        (b"text", "not a CIFAR-10 batch"),
        (bytes(3072), "not a CIFAR-10 batch"),
    ],
)
def test_invalid_batches(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loads(tmp_path, python_version() | {"data_batch_1": content})


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, "is missing"),
        (python2({}), "damaged"),
        (python2([1]), "damaged"),
        (python2({b"label_names": 5}), "damaged"),
        (python2({b"label_names": ROWS}), "damaged"),
        (python2({b"label_names": [b"cat", b"cat"]}), "must be unique"),
        (python2({b"label_names": [b"cat", b"\x1b[2J"]}), "printable"),
        (python2({b"label_names": [[], {}]}), "must be unique"),
        (python2({b"label_names": [b"cat"]}), "2 to 1000 classes"),
        (python2({b"label_names": [b"cat", b"dog"]}), "labels must be in 0..1"),
    ],
)
def test_invalid_class_names(tmp_path: Path, meta: bytes | None, message: str) -> None:
    files = python_version() | ({"batches.meta": meta} if meta is not None else {})
    if meta is None:
        del files["batches.meta"]
    with pytest.raises(DataError, match=message):
        loads(tmp_path, files)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.bin", b"", "multiple of 3,073"),
        ("data_batch_2.bin", bytes(3072), "multiple of 3,073"),
        ("data_batch_2.bin", bytes(3073 * 3 + 1), "multiple of 3,073"),
        ("data_batch_2.bin", b"\x0a" + bytes(3072), "labels must be in"),
        ("batches.meta.txt", b"\xff\xfe", "damaged"),
        ("batches.meta.txt", b"cat", "2 to 1000 classes"),
        ("data_batch_9", python2(batch("data_batch_1")), "more than one"),
        ("copy/data_batch_1.bin", bytes(3073), "more than one"),
    ],
)
def test_invalid_binary_version(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loads(tmp_path, binary_version() | {name: content})


def test_is_official() -> None:
    assert is_official(["x/data_batch_1"])
    assert is_official(["test_batch.bin"])
    assert not is_official(["data_batch_1.png", "xtest_batch", "batches.meta", "cat_1.png"])


@pytest.mark.parametrize("part", [i / 25 for i in range(25)])
def test_truncated_batch(tmp_path: Path, part: float) -> None:
    content = python2(batch("data_batch_1"))
    with pytest.raises(DataError, match="not a CIFAR-10 batch"):
        loads(tmp_path, python_version() | {"data_batch_1": content[: int(len(content) * part)]})


# Hostile pickles


def call(module: str, name: str, argument: str) -> bytes:
    """Return a pickle (protocol 0) that calls module.name(argument)."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def call_in_protocol_4(module: str, name: str, argument: str) -> bytes:
    strings = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    return b"\x80\x04" + strings + b"\x93\x8c" + bytes([len(argument)]) + argument.encode() + b"\x85R."


CALLS = {
    ("os", "system"): "touch MARK",
    ("posix", "system"): "touch MARK",
    ("subprocess", "getoutput"): "touch MARK",
    ("builtins", "eval"): "open('MARK', 'w')",
    ("builtins", "exec"): "open('MARK', 'w')",
    ("__builtin__", "eval"): "open('MARK', 'w')",
    ("builtins", "getattr"): "MARK",
    ("numpy", "load"): "MARK",
    ("numpy", "save"): "MARK",
    ("numpy", "fromfile"): "MARK",
    ("numpy", "memmap"): "MARK",
    ("numpy.core.multiarray", "scalar"): "MARK",
    ("numpy", "ndarray.tofile"): "MARK",
    ("numpy", "dtype.__class__"): "MARK",
    ("numpy.testing._private.utils", "runstring"): "MARK",
    ("_codecs", "encode"): "MARK",
    ("copyreg", "_reconstructor"): "MARK",
    ("cifarml.data.cifar10.safe_pickle", "load_arrays"): "MARK",
    ("pickle", "loads"): "MARK",
}


@pytest.mark.parametrize("write", [call, call_in_protocol_4])
@pytest.mark.parametrize("target", list(CALLS), ids=".".join)
def test_pickle_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object, target: tuple[str, str]
) -> None:
    mark = tmp_path / "MARK"
    monkeypatch.chdir(tmp_path)
    content = (call if write is call else call_in_protocol_4)(*target, CALLS[target])
    with pytest.raises(DataError, match=r"refers to|not a CIFAR-10 batch"):
        load_arrays(content)
    for name in ("data_batch_3", "batches.meta"):
        with pytest.raises(DataError, match=r"refers to|not a CIFAR-10 batch"):
            loads(tmp_path, python_version() | {name: content})
    assert not mark.exists()
    if target == ("os", "system"):  # the standard unpickler does call it
        pickle.loads(content)
        assert mark.exists()


def test_object_array_is_rejected(tmp_path: Path) -> None:
    writer = Python2()
    writer.out.write(b"\x80\x02}(")
    writer.write(b"labels")
    writer.write([0, 1])
    writer.write(b"data")
    writer.array(np.empty((2, 3072), object), [b"x"] * 6144)
    with pytest.raises(DataError, match="uint8 array"):
        loads(tmp_path, python_version() | {"data_batch_1": writer.out.getvalue() + b"u."})


def array_of_shape(shape: tuple[object, ...], content: bytes = b"x" * 3072) -> bytes:
    """Return a batch of one image whose array has this shape; bytes in it are opcodes."""
    writer = Python2()
    writer.array(ROWS[:1], content)
    inner = writer.out.getvalue()
    old, new = Python2(), io.BytesIO()
    old.write(1)
    for part in shape:
        new.write(part if isinstance(part, bytes) else pickle.dumps(part, 2)[2:-1])
    new.write({0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}[len(shape)])
    start = inner.index(b"K\x01K\x01M\x00\x0c\x86") + 2
    inner = inner[:start] + new.getvalue() + inner[start + 6 :]
    return b"\x80\x02}(U\x06labels](K\x00eU\x04data" + inner + b"u."


def test_array_of_correct_shape_is_accepted(tmp_path: Path) -> None:
    content = array_of_shape((1, 3072))
    assert (
        len(load_dataset(WRITERS["folder"](tmp_path / "x", python_version() | {"data_batch_1": content})))
        == 61
    )


def long(size: int) -> bytes:
    """Return a pickled integer of this many bytes."""
    return b"\x8b" + struct.pack("<i", size) + b"\x7f" * size


@pytest.mark.parametrize(
    "shape",
    [
        (2**31 - 1, 3072),
        (-1, 3072),
        (-1, -3072),
        (2**62, 2**62),
        (0, 3072),
        (1, 3071),
        (3072, 1),
        (1, 3072, 1),
        (3072,),
        (),
        (1.0, 3072.0),
        (b"N", 3072),
        (long(5_000), 3072),
        (long(2**24), long(2**24)),
        (1, long(5_000)),
    ],
    ids=lambda shape: str(shape)[:30],
)
def test_hostile_shapes(tmp_path: Path, shape: tuple[object, ...]) -> None:
    with pytest.raises(DataError, match=r"uint8 array|not a CIFAR-10"):
        loads(tmp_path, python_version() | {"data_batch_1": array_of_shape(shape)})


LISTS = b"N" + b"".join(b"q%c](h%ch%ceq%c" % (i, i, i, i + 1) for i in range(60))
TUPLES = b"N" + b"2\x86" * 60
COLLIDING = b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N" for i in range(1, 190_000))
BOMBS = {
    "memo index 2**31": b"\x80\x02]r\xff\xff\xff\x7f.",
    "memo index that skips one": b"\x80\x02]q\x02.",
    "memo index in text": b"(lp2147483647\n.",
    "memo index 100,000": b"\x80\x02]r" + struct.pack("<I", 100_000) + b".",
    "hash of nested tuples": b"\x80\x02}" + TUPLES + b"Ns.",
    "set of nested tuples": b"\x80\x04\x8f(" + TUPLES + b"\x90.",
    "nested tuples from the memo": b"\x80\x02}N" + b"q\x00h\x00\x86" * 60 + b"Ns.",
    "tuple from the memo": b"\x80\x02N\x85q\x00q\x01h\x01\x86.",
    "tuple from a memo index that is used twice": b"\x80\x04]q\x00q\x00N\x85\x94h\x01\x86.",
    "seventeen tuples": b"\x80\x02" + b"N\x85" * 17 + b".",
    "as many lists as bytes": b"\x80\x02" + b"]" * 600_000 + b".",
    "string of nested lists": b"\x80\x02}(U\x0blabel_names](" + LISTS + LISTS + b"eU\x04dataNU\x06labelsNu.",
    "type named by nested lists": b"\x80\x02cnumpy\ndtype\n" + LISTS + b"\x85R.",
    "keys that collide": b"\x80\x02}(" + COLLIDING + b"u.",
    "many keys": b"\x80\x02}(" + b"".join(b"G" + struct.pack(">d", i) + b"N" for i in range(100_000)) + b"u.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples as a key": b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "many marks": b"\x80\x02" + b"(" * 500_000,
    "a long string that is missing": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a bytearray that is missing": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a frame that is missing": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"x.",
    "a number of 4 MB": b"\x80\x02" + long(2**22) + b".",
    "a number of 1,000,000 digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "persistent object": b"\x80\x02U\x01xQ.",
    "extension": b"\x80\x02\x82\x01.",
    "state for a class": b"\x80\x02cnumpy\nndarray\nNb.",
    "attributes for a class": b"\x80\x02cnumpy\nndarray\n}U\x05stateNsb.",
    "slots for a class": b"\x80\x02cnumpy\nndarray\nN}U\x05stateNs\x86b.",
    "array without state": b"\x80\x02cnumpy\nndarray\n)R.",
}


@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
@pytest.mark.parametrize("bomb", list(BOMBS))
def test_pickle_bombs(tmp_path: Path, bomb: str, name: str) -> None:
    files = python_version() | {name: BOMBS[bomb]}
    tracemalloc.start()
    with pytest.raises(DataError):
        loads(tmp_path, files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_batch_of_10000_images() -> None:
    digests = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest().encode() for i in range(10_000)]
    value = {
        b"batch_label": b"x",
        b"labels": [7] * 10_000,
        b"data": np.zeros((10_000, 3072), np.uint8),
        b"filenames": digests,
    }
    for first_memo_index in (0, 1):  # `pickle` and `cPickle` of Python 2
        assert load_arrays(python2(value, first_memo_index))[b"filenames"] == digests


@pytest.mark.parametrize("version", ["python", "binary"])
def test_missing_batches_are_reported(tmp_path: Path, version: str) -> None:
    files = python_version() if version == "python" else binary_version()
    suffix = ".bin" if version == "binary" else ""
    assert not load_dataset(WRITERS["folder"](tmp_path / "whole", files)).ignored
    for name in ("data_batch_2", "data_batch_4"):
        del files[f"{name}{suffix}"]
    (missing,) = load_dataset(WRITERS["images.zip"](tmp_path / "x.zip", files)).ignored
    assert (missing.kind, missing.count, missing.example) == ("missing batch", 2, "data_batch_2")
    assert check_source(tmp_path / "x.zip").to_json()["ignored"] == [vars(missing)]
