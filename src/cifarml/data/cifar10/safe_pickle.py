"""Unpickler for CIFAR-10 batches that imports and calls nothing.

An allow-list in `find_class` keeps a pickle from running code, but not from exhausting memory or time: a few
bytes can name memo index 2**31, or nest a tuple in another twice, 60 levels deep, and use it as a dict key.
So all opcodes are checked before the first is executed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cifarml.errors import DataError

_NAMES: Final = frozenset(
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
    for name in ("_reconstruct", "ndarray", "dtype")
)
_TUPLES: Final = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_PUTS: Final = frozenset({"BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET"})
_PLAIN: Final = (
    "PROTO FRAME STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINUNICODE "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BINSTRING SHORT_BINSTRING EMPTY_LIST EMPTY_DICT EMPTY_TUPLE MARK "
    "APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD"
)
_OPCODES: Final = frozenset(_PLAIN.split()) | _TUPLES | _PUTS | _GETS
_MAX_OPCODES: Final = 500_000
"""A batch of 10,000 images has about 40,000."""

_MAX_TUPLES: Final = 16
"""A pickled array has six."""


class _StandIn:
    """Placeholder for every class or function in a pickle: records arguments and state without using them."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_StandIn]:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it refers to {f'{module}.{name}'[:100]!r}, which is not allowed")
        return _StandIn


def load_arrays(content: bytes) -> Any:
    """Load a pickle (protocols 2 to 4) of plain values and arrays; convert the arrays with `to_array`.

    Raises:
        DataError: If the pickle is damaged or contains anything else.
    """
    try:
        _check_opcodes(content)
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # hostile bytes make pickle and pickletools raise almost anything
        raise DataError(f"not a CIFAR-10 batch: {error or type(error).__name__}") from error


def to_array(value: Any, columns: int) -> npt.NDArray[np.uint8]:
    """Return an array from a pickle, uint8 of shape (N, `columns`).

    Raises:
        DataError: If the value is not such an array.
    """
    match value:
        case _StandIn(
            state=(int(), (int(rows), width), _StandIn(arguments=("u1" | b"u1", *_)), False | 0, bytes(data)),
        ) if width == columns and rows == len(data) / columns:
            return np.frombuffer(data, np.uint8).reshape(-1, columns)
    raise DataError(f"images must be a uint8 array of shape (N, {columns})")


def _check_opcodes(content: bytes) -> None:
    """Reject opcodes that could take more memory or time than the size of the pickle justifies.

    A memoized tuple could be nested repeatedly, so it can't be read back. Memo indices must count up from 0
    or 1.
    """
    memo_holds_tuple: dict[int, bool] = {}
    tuple_on_top = False
    num_tuples = 0
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name not in _OPCODES or number >= _MAX_OPCODES:
            raise ValueError(f"opcode {name} (number {number:,}) is not allowed")
        if name in _PUTS:
            index = len(memo_holds_tuple) if argument is None else argument
            if index in memo_holds_tuple or index > len(memo_holds_tuple) + 1:
                raise ValueError(f"memo index {index} is out of order")
            memo_holds_tuple[index] = tuple_on_top
        elif name in _GETS and memo_holds_tuple.get(argument, True):
            raise ValueError(f"memo index {argument} cannot be used")
        elif name in _TUPLES and (num_tuples := num_tuples + 1) > _MAX_TUPLES:
            raise ValueError("it contains too many tuples")
        elif name == "LONG1" and abs(argument) >= 2**63:
            raise ValueError("it contains an integer that is too large")
        tuple_on_top = name in _TUPLES or (name in _PUTS and tuple_on_top)
