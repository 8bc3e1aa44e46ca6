"""Pickled byte arrays, read without ever running the pickle.

A pickle is a program for a small stack machine. This is that machine with the few instructions that
dicts, lists, texts, numbers and numpy arrays need, none of which calls anything. Python's own
unpickler would not do, even with its calls cut off: a few bytes can fill its memory, keep it busy for
years (by hashing tuples of tuples) or overflow its stack.
"""

from __future__ import annotations

import dataclasses
import pickletools
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cifarml.errors import DataError

__all__ = ["load_arrays", "to_array"]

_ALLOWED: Final = frozenset(
    f"{module} {name}"
    for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
    for name in ("_reconstruct", "ndarray", "dtype")
)


@dataclasses.dataclass(eq=False)
class _Object:
    """What a pickle asks to be made of a name; nobody makes it."""

    name: str
    arguments: Any = None
    state: Any = None


def load_arrays(content: bytes) -> Any:
    """Read a pickle of plain values and arrays, protocols 2 to 4; ``to_array`` goes on with the arrays.

    Raises:
        DataError: If it is damaged, or holds anything else.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.run(opcode.name, argument)
        return machine.stack.pop()
    except Exception as error:  # hostile bytes make pickletools and the machine raise almost anything
        raise DataError(f"not a CIFAR-10 batch: {error or type(error).__name__}") from error


def to_array(value: Any, columns: int) -> npt.NDArray[np.uint8]:
    """Return a pickled array of bytes of shape (N, ``columns``).

    Raises:
        DataError: If it is anything else.
    """
    match value:
        case _Object(
            arguments=tuple(),
            state=(int(), (int(rows), width), _Object(arguments=("u1" | b"u1", *_)), False | 0, bytes(data)),
        ) if width == columns and rows == len(data) / columns:
            return np.frombuffer(data, np.uint8).reshape(-1, columns)
    raise DataError(f"images must be an array of bytes (uint8) of shape (N, {columns})")


class _Machine:
    """The stack machine; see pickletools.py of the standard library for its instructions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:  # noqa: PLR0912
        """Carry out an instruction."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":  # bytes, which pickletools shows as text
                stack.append(argument.encode("latin-1"))
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                stack.append({"EMPTY_LIST": [], "EMPTY_DICT": {}, "EMPTY_TUPLE": ()}[name])
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(self._marks.pop() if name == "TUPLE" else -int(name[-1]))))
            case "APPEND" | "APPENDS":
                items = self._pop(self._marks.pop() if name == "APPENDS" else -1)
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                self._set_items(self._pop(self._marks.pop() if name == "SETITEMS" else -2))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                self._push_object(argument)
            case "STACK_GLOBAL":
                self._push_object(" ".join(self._pop(-2)))
            case "REDUCE":
                made, arguments = self._pop(-2)
                stack.append(_Object(made.name, arguments))
            case "BUILD":
                (state,) = self._pop(-1)
                stack[-1].state = state
            case _:
                raise ValueError(f"no image needs the instruction {name}")

    def _pop(self, start: int) -> list[Any]:
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _set_items(self, items: list[Any]) -> None:
        keys = items[::2]
        if not all(isinstance(key, bytes | str) for key in keys):
            raise ValueError("its keys are no texts")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def _push_object(self, name: str) -> None:
        if name not in _ALLOWED:
            raise ValueError(f"it asks for {name.replace(' ', '.')[:100]}, which no image needs")
        self.stack.append(_Object(name))
