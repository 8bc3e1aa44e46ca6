"""Winograd convolution for small images and 3x3 kernels, with a quarter of the multiplications.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, after S. Winograd: a
tile of an image and the kernel are both treated as polynomials and evaluated at some points, where their
product takes one multiplication per point. Small matrices transform a tile to the points and back; the sums
over all channels are matrix products, one for each point. A tile of 7x7 takes 81 multiplications instead of
441.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from keras import ops

_KERNEL: Final = 3
_TILE: Final = 7
"""Side of the largest tile; larger tiles lose precision."""
_POINTS: Final = (0, 1, -1, 1 / 2, -2, 2, -1 / 2)
_POINTS_OF_7: Final = (1 / 4, -1 / 4, 2 / 3, -2 / 3, 6 / 5, -6 / 5, 2, -2)
"""Evaluation points besides infinity: of 3,000 sets of simple numbers the most precise one. In float32 the
standard deviation of the error is 1e-5 of that of the result, and 4e-6 with the points for tiles of 6
(measured on normal random numbers)."""

Matrix = npt.NDArray[np.float32]


class _Transforms(NamedTuple):
    """Transform matrices along one axis: a convolution is ``result @ ((kernel @ k) * (tile @ x))``."""

    tile: Matrix
    kernel: Matrix
    result: Matrix


def is_faster(size: int, channels: int) -> bool:
    """Return whether Winograd convolution is faster than a direct one, as measured on AVX-512.

    With 64 channels or more it was faster for every size; with 32 it was as fast for 14 pixels, and with 16
    slower.

    Args:
        size: Side of the result, in pixels.
        channels: The smaller one of the numbers of input and output channels.
    """
    if size <= _TILE:
        return size > 0 and channels >= 48
    return size <= 2 * _TILE and size % 2 == 0 and channels >= 32


def convolve(images: Any, kernel: Any, *, size: int) -> Any:
    """Convolve zero-padded images, and return the upper left part of the result.

    Args:
        images: float32, shape (N, S, S, C).
        kernel: float32, shape (3, 3, C, D).
        size: Side of the returned part, in pixels: S, or S - 1 if the following pooling ignores the last row
            and column. At most 14; above 7 it must be even.

    Returns:
        float32, shape (N, size, size, D).
    """
    side, (channels, filters) = images.shape[1], kernel.shape[2:]
    tiles = -(-size // _TILE)
    length = size // tiles
    transforms = _transforms(length)
    points = len(transforms.kernel) ** 2
    pixels = ops.reshape(ops.transpose(images, (1, 2, 0, 3)), (side**2, -1))
    at_points = ops.reshape(ops.matmul(_tile_transform(length, tiles, side), pixels), (points, -1, channels))
    weights = ops.reshape(kernel, (_KERNEL**2, -1))
    weights = ops.reshape(
        ops.matmul(np.kron(transforms.kernel, transforms.kernel), weights), (points, channels, filters)
    )
    products = ops.reshape(ops.matmul(at_points, weights), (points, -1))
    results = ops.matmul(np.kron(transforms.result, transforms.result), products)
    by_tile = ops.reshape(results, (length, length, tiles, tiles, -1, filters))
    return ops.reshape(ops.transpose(by_tile, (4, 2, 0, 3, 1, 5)), (-1, size, size, filters))


@cache
def _tile_transform(length: int, tiles: int, side: int) -> Matrix:
    """Return the input transform of all tiles: shape (points squared * tiles squared, side squared)."""
    tile = _transforms(length).tile
    placed = np.zeros((len(tile), tiles, side + 2), np.float32)  # with padding at both ends
    for number in range(tiles):
        placed[:, number, number * length : number * length + tile.shape[1]] = tile
    placed = placed[:, :, 1:-1]
    transform: Matrix = np.einsum("pts,quv->pqtusv", placed, placed).reshape(-1, side**2)
    return transform


@cache
def _transforms(length: int) -> _Transforms:
    """Return the transforms of a tile with ``length`` result pixels; Lavin and Gray, 2016, section 4."""
    points = np.array(_POINTS_OF_7 if length == _TILE else _POINTS[: length + 1])

    def powers(count: int) -> npt.NDArray[np.float64]:
        at_infinity = np.arange(count) == count - 1
        return np.vstack([points[:, None] ** np.arange(count), at_infinity])

    tile, kernel, result = np.linalg.inv(powers(length + 2)).T, powers(_KERNEL), powers(length).T
    # Balance the magnitude of each point over the three matrices, for precision.
    sizes = [np.linalg.norm(tile, axis=1), np.linalg.norm(kernel, axis=1), np.linalg.norm(result, axis=0)]
    mean = np.prod(sizes, axis=0) ** (1 / 3)
    return _Transforms(
        (tile * (mean / sizes[0])[:, None]).astype(np.float32),
        (kernel * (mean / sizes[1])[:, None]).astype(np.float32),
        (result * (mean / sizes[2])).astype(np.float32),
    )
