"""Convolutions of small images with 3x3 kernels, in a quarter of the multiplications.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, after S. Winograd: a
tile of an image and the kernel are both read as polynomials, and taken at some points; there their product
is one multiplication a point. What a tile needs for that are small matrices; the products over all channels
are matrix products, one for each point. So a tile of 7x7 takes 81 of them rather than 441.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from keras import ops

_KERNEL: Final = 3
_TILE: Final = 7
"""Side of the largest tile; each larger one would lose more digits."""
_POINTS: Final = (0, 1, -1, 1 / 2, -2, 2, -1 / 2)
_POINTS_OF_7: Final = (1 / 4, -1 / 4, 2 / 3, -2 / 3, 6 / 5, -6 / 5, 2, -2)
"""Besides infinity. Of 3,000 sets of simple numbers the one that lost least: the error's standard deviation
in float32 is 1e-5 of the result's, and 4e-6 with the points for 6 (measured on normal random numbers)."""

Matrix = npt.NDArray[np.float32]


class _Transforms(NamedTuple):
    """The matrices of a tile in one direction: convolution is ``result @ ((kernel @ k) * (tile @ x))``."""

    tile: Matrix
    kernel: Matrix
    result: Matrix


def pays(size: int, channels: int) -> bool:
    """Tell whether it is quicker than a convolution that multiplies everything; measured on AVX-512.

    With 64 channels or more it was, for each size; with 32 it was as quick for 14 pixels, and with 16 slower.
    Of the channels that come in and go out the fewer count; ``size`` is the side of the result in pixels.
    """
    if size <= _TILE:
        return size > 0 and channels >= 48
    return size <= 2 * _TILE and size % 2 == 0 and channels >= 32


def convolve(images: Any, kernel: Any, *, size: int) -> Any:
    """Convolve images with zeros around them, and return the upper left part of what comes out.

    Args:
        images: float32, shape (N, S, S, C).
        kernel: float32, shape (3, 3, C, D).
        size: Side of the part, in pixels: S, or 1 less where the pooling behind looks at no more. At most 14,
            and even above 7.

    Returns:
        float32, shape (N, size, size, D).
    """
    side, (channels, filters) = images.shape[1], kernel.shape[2:]
    tiles = -(-size // _TILE)
    length = size // tiles
    along = _transforms(length)
    points = len(along.kernel) ** 2
    pixels = ops.reshape(ops.transpose(images, (1, 2, 0, 3)), (side**2, -1))
    at_points = ops.reshape(ops.matmul(_of_all(length, tiles, side), pixels), (points, -1, channels))
    weights = ops.reshape(kernel, (_KERNEL**2, -1))
    weights = ops.reshape(
        ops.matmul(np.kron(along.kernel, along.kernel), weights), (points, channels, filters)
    )
    products = ops.reshape(ops.matmul(at_points, weights), (points, -1))
    results = ops.matmul(np.kron(along.result, along.result), products)
    apart = ops.reshape(results, (length, length, tiles, tiles, -1, filters))
    return ops.reshape(ops.transpose(apart, (4, 2, 0, 3, 1, 5)), (-1, size, size, filters))


@cache
def _of_all(length: int, tiles: int, side: int) -> Matrix:
    """Return the transform of all tiles of an image: (points squared * tiles squared, side squared)."""
    tile = _transforms(length).tile
    placed = np.zeros((len(tile), tiles, side + 2), np.float32)  # with a zero at each end
    for number in range(tiles):
        placed[:, number, number * length : number * length + tile.shape[1]] = tile
    placed = placed[:, :, 1:-1]
    of_all: Matrix = np.einsum("pts,quv->pqtusv", placed, placed).reshape(-1, side**2)
    return of_all


@cache
def _transforms(length: int) -> _Transforms:
    """Return the matrices for a tile with a result of so many pixels; Lavin and Gray, 2016, section 4."""
    points = np.array(_POINTS_OF_7 if length == _TILE else _POINTS[: length + 1])

    def powers(count: int) -> npt.NDArray[np.float64]:
        at_infinity = np.arange(count) == count - 1
        return np.vstack([points[:, None] ** np.arange(count), at_infinity])

    tile, kernel, result = np.linalg.inv(powers(length + 2)).T, powers(_KERNEL), powers(length).T
    # Each point's numbers are spread evenly over the three matrices.
    sizes = [np.linalg.norm(tile, axis=1), np.linalg.norm(kernel, axis=1), np.linalg.norm(result, axis=0)]
    mean = np.prod(sizes, axis=0) ** (1 / 3)
    return _Transforms(
        (tile * (mean / sizes[0])[:, None]).astype(np.float32),
        (kernel * (mean / sizes[1])[:, None]).astype(np.float32),
        (result * (mean / sizes[2])).astype(np.float32),
    )
