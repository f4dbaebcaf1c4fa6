"""Photographs from a folder, whitened as the retina is thought to do it (Olshausen & Field 1997; arXiv 2301.10002)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from sparselab.estimation.problems.images import HATEREN, SUFFIXES

Array = np.ndarray


def pictures_in(folder: Path) -> list[Path]:
    """The picture files directly in ``folder``, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of a picture, from the head of its file. ValueError for a file that is none."""
    from PIL import Image

    if path.suffix.lower() == ".imc":
        return HATEREN
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError:
        raise ValueError(f"{path.name} cannot be read as a picture") from None


def read(path: Path) -> Array:
    """(height, width) grey values of a picture. ValueError for a file that is none."""
    from PIL import Image

    if path.suffix.lower() == ".imc":
        pixels = np.fromfile(path, dtype=">u2")
        if pixels.size != HATEREN[0] * HATEREN[1]:
            raise ValueError(f"{path.name} is no picture of van Hateren's set (1024 x 1536, 16 bits)")
        return pixels.reshape(HATEREN).astype(np.float64)
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith("I") or image.mode == "F"  # PIL would cut grey values of 16 bits off at 255
            return np.asarray(image if deep else image.convert("L"), dtype=np.float64)
    except OSError:
        raise ValueError(f"{path.name} cannot be read as a picture") from None


def standardised(picture: Array) -> Array:
    """The picture with mean 0 and standard deviation 1; a picture of one grey value becomes 0."""
    spread = picture.std()
    return (picture - picture.mean()) / (spread if spread > 0 else 1.0)


def gain(height: int, width: int, f0: float, frequencies: str) -> Array:
    """(height, width) gain of each Fourier coefficient, in the order of ``numpy.fft.fft2``: rho exp(-(rho / f0)^4).

    f0: in cycles per pixel (vertically). frequencies: ``isotropic`` has rho in cycles per pixel, so that all pictures are
    filtered alike; ``index`` counts whole periods along each side, over the height, as the released code does. Both say
    the same of a square picture.
    """
    down = np.fft.fftfreq(height)[:, None]
    across = np.fft.fftfreq(width)[None, :]
    if frequencies == "index":
        across = across * (width / height)
    rho = np.hypot(down, across)
    return rho * np.exp(-((rho / f0) ** 4))


def whitened(picture: Array, f0: float, frequencies: str) -> Array:
    """The picture under :func:`gain`; its mean is 0, because the gain of the mean is."""
    height, width = picture.shape
    half = gain(height, width, f0, frequencies)[:, : width // 2 + 1]  # the gain is even, the picture real
    return np.fft.irfft2(np.fft.rfft2(picture) * half, s=picture.shape)


def prepared(pictures: Sequence[Array], whiten: str, f0: float, frequencies: str) -> list[Array]:
    """Each picture standardised and, where ``whiten`` is ``olshausen``, filtered."""
    standard = [standardised(picture) for picture in pictures]
    return standard if whiten == "none" else [whitened(one, f0, frequencies) for one in standard]


def amplitude(pictures: Sequence[Array]) -> float:
    """Root of the mean variance of the pictures: the one factor that all of them are divided by."""
    return float(np.sqrt(np.mean([picture.var() for picture in pictures])))


@lru_cache(maxsize=2)
def load(
    folder: Path, stamp: tuple[tuple[str, int, int], ...], whiten: str, f0: float, frequencies: str
) -> tuple[Array, ...]:
    """The prepared pictures of a folder; ``stamp`` (:func:`stamp_of`) is there so that changed files are read again."""
    found = prepared([read(folder / name) for name, _, _ in stamp], whiten, f0, frequencies)
    for picture in found:
        picture.setflags(write=False)
    return tuple(found)


def stamp_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, time of change, size) of each picture in ``folder``."""
    return tuple((path.name, (s := path.stat()).st_mtime_ns, s.st_size) for path in pictures_in(folder))


def patches(pictures: Sequence[Array], side: int, count: int, margin: int, rng: np.random.Generator) -> Array:
    """(count, side * side) random square patches, each less its own mean.

    Every patch has a random picture and a random place in it, at least ``margin`` pixels from the edges.
    """
    which = rng.integers(len(pictures), size=count)
    corners = rng.random((count, 2))
    found = np.empty((count, side * side))
    for number, picture in enumerate(pictures):
        mine = np.flatnonzero(which == number)
        if not len(mine):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(picture, (side, side))
        room = np.array(windows.shape[:2]) - 2 * margin
        if room.min() < 1:
            raise ValueError(f"a picture of {picture.shape[0]} x {picture.shape[1]} pixels has no room for a patch")
        rows, columns = (margin + (corners[mine] * room).astype(int)).T
        found[mine] = windows[rows, columns].reshape(len(mine), -1)
    return found - found.mean(axis=1, keepdims=True)
