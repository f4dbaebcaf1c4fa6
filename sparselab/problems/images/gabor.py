"""Receptive fields: Gabor functions fitted to them, all at once, and how sharply they prefer an orientation.

A Gabor function is exp(-(x'^2 / 2 sx^2 + y'^2 / 2 sy^2)) (a cos(2 pi f x') + b sin(2 pi f x')), where (x', y') are
coordinates around its centre, turned by theta: A cos(2 pi f x' + phase) in other letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 60
SIZES = (0.12, 0.25)  # starts of sx and sy, over the side
FACTORS = (1.0, 0.6)  # starts of the frequency, over that of the Fourier peak
PADDED = 64  # points of the Fourier transform along a side
NARROWEST = 0.4  # pixels: below it an envelope fits single pixels

Array = np.ndarray


@dataclass(frozen=True)
class Gabors:
    """A fit for each of n fields. Lengths in pixels, frequency in cycles per pixel, theta in radians in [0, pi).

    explained: share of the field's energy that the fit explains, at most 1.
    """

    centre: Array  # (n, 2): right, down
    sx: Array  # across the stripes
    sy: Array  # along them
    theta: Array
    frequency: Array
    explained: Array


def fit(fields: Array, side: int) -> Gabors:
    """Gabor functions nearest to ``fields`` (n, side * side) in squares: the best of several starts of damped least squares."""
    fields = np.asarray(fields, dtype=np.float64)
    size = np.linalg.norm(fields, axis=1, keepdims=True)
    unit = fields / np.where(size > 0, size, 1.0)
    frequency, theta = peaks(unit, side)
    best: Array | None = None
    error = np.full(len(unit), np.inf)
    for centre in (_centroids(unit, side), _largest(unit, side)):
        for width in SIZES:
            for factor in FACTORS:
                start = np.column_stack(
                    [centre, np.full((len(unit), 2), np.log(width * side)), theta, frequency * factor]
                )
                found, left = _descend(start, unit, side)
                better = left < error
                best = found if best is None else np.where(better[:, None], found, best)
                error = np.minimum(left, error)
    assert best is not None
    return Gabors(
        centre=best[:, :2], sx=np.exp(best[:, 2]), sy=np.exp(best[:, 3]), theta=best[:, 4] % np.pi,
        frequency=best[:, 5], explained=np.where(size[:, 0] > 0, 1 - error, 0.0),
    )  # fmt: skip


def gabor(parameters: Array, waves: Array, side: int) -> Array:
    """(n, side * side) Gabor functions of ``parameters`` (n, 6: right, down, log sx, log sy, theta, f), waves (n, 2: a, b)."""
    cosine, sine, *_ = _parts(parameters, side)
    return waves[:, :1] * cosine + waves[:, 1:] * sine


def selectivity(fields: Array, side: int, angles: int = 36) -> Array:
    """(n,) 1 - circular variance of each field's response to gratings of its best frequency: 0 for none, 1 for one angle.

    The response is the largest over phases.
    """
    fields = np.asarray(fields, dtype=np.float64)
    frequency, _ = peaks(fields, side)
    right, down = _grid(side)
    theta = np.arange(angles) * np.pi / angles
    along = np.cos(theta)[:, None] * right + np.sin(theta)[:, None] * down  # (angles, pixels)
    turned = np.exp(2j * theta)
    found = np.zeros(len(fields))
    for number, field in enumerate(fields):
        response = np.abs(np.exp(-2j * np.pi * frequency[number] * along) @ field)
        total = response.sum()
        found[number] = abs((response * turned).sum()) / total if total > 0 else 0.0
    return found


def peaks(fields: Array, side: int) -> tuple[Array, Array]:
    """(frequency, theta), each (n,), where the fields' Fourier transforms are largest."""
    spectrum = np.abs(np.fft.fft2(fields.reshape(-1, side, side), s=(PADDED, PADDED)))[:, :, : PADDED // 2 + 1]
    down, right = np.unravel_index(spectrum.reshape(len(fields), -1).argmax(axis=1), spectrum.shape[1:])
    fy, fx = np.fft.fftfreq(PADDED)[down], right / PADDED
    return np.hypot(fx, fy), np.arctan2(fy, fx)


def _grid(side: int) -> tuple[Array, Array]:
    """(right, down) of the pixels, row by row, from the middle of the field."""
    place = np.arange(side) - (side - 1) / 2
    down, right = np.meshgrid(place, place, indexing="ij")
    return right.ravel(), down.ravel()


def _centroids(fields: Array, side: int) -> Array:
    return fields**2 @ np.column_stack(_grid(side))


def _largest(fields: Array, side: int) -> Array:
    return np.column_stack(_grid(side))[np.abs(fields).argmax(axis=1)]


def _parts(p: Array, side: int) -> tuple[Array, ...]:
    """(cosine, sine) waves under their envelopes, and what their derivatives need; each (n, pixels)."""
    right, down = _grid(side)
    right, down = right[None] - p[:, :1], down[None] - p[:, 1:2]
    c, s = np.cos(p[:, 4:5]), np.sin(p[:, 4:5])
    x, y = c * right + s * down, -s * right + c * down
    u, v = x / np.exp(p[:, 2:3]), y / np.exp(p[:, 3:4])
    envelope = np.exp(-0.5 * (u * u + v * v))
    phase = 2 * np.pi * p[:, 5:6] * x
    return envelope * np.cos(phase), envelope * np.sin(phase), x, y, u, v


def _waves(cosine: Array, sine: Array, fields: Array) -> Array:
    """(n, 2) the best a and b for given envelopes and phases, by least squares with a hair of ridge."""
    cc, ss, cs = ((one * other).sum(1) for one, other in ((cosine, cosine), (sine, sine), (cosine, sine)))
    cf, sf = (cosine * fields).sum(1), (sine * fields).sum(1)
    ridge = 1e-9 * (cc + ss) + 1e-300
    cc, ss = cc + ridge, ss + ridge
    determinant = cc * ss - cs * cs
    return np.column_stack([ss * cf - cs * sf, cc * sf - cs * cf]) / determinant[:, None]


def _descend(p: Array, fields: Array, side: int) -> tuple[Array, Array]:
    """(parameters, squared error) after damped Gauss-Newton steps; a and b follow in closed form (variable projection)."""
    p = _inside(p, side)
    damping = np.full(len(p), 1e-2)
    residual, jacobian = _slopes(p, fields, side)
    error = (residual**2).sum(1)
    for _ in range(STEPS):
        square = jacobian.transpose(0, 2, 1) @ jacobian
        slope = (jacobian * residual[:, :, None]).sum(1)
        diagonal = np.einsum("nii->ni", square)
        diagonal += damping[:, None] * (diagonal + 1e-6)
        trial = _inside(p - np.linalg.solve(square, slope[:, :, None])[:, :, 0], side)
        residual_there, jacobian_there = _slopes(trial, fields, side)
        error_there = (residual_there**2).sum(1)
        better = error_there < error
        gained = np.where(better, error - error_there, 0.0)
        p = np.where(better[:, None], trial, p)
        residual = np.where(better[:, None], residual_there, residual)
        jacobian = np.where(better[:, None, None], jacobian_there, jacobian)
        error = np.where(better, error_there, error)
        damping = np.clip(np.where(better, damping * 0.3, damping * 5.0), 1e-8, 1e8)
        if not (gained > 1e-7).any() and (damping > 1e3).all():
            break
    return p, error


def _slopes(p: Array, fields: Array, side: int) -> tuple[Array, Array]:
    """(residual, its derivative in p with a and b held): model - field (n, pixels) and (n, pixels, 6)."""
    cosine, sine, x, y, u, v = _parts(p, side)
    waves = _waves(cosine, sine, fields)
    a, b = waves[:, :1], waves[:, 1:]
    model = a * cosine + b * sine
    turning = 2 * np.pi * (b * cosine - a * sine)  # the derivative in f x'
    f = p[:, 5:6]
    by_x = -model * u / np.exp(p[:, 2:3]) + turning * f
    by_y = -model * v / np.exp(p[:, 3:4])
    c, s = np.cos(p[:, 4:5]), np.sin(p[:, 4:5])
    jacobian = np.stack(
        [-c * by_x + s * by_y, -s * by_x - c * by_y, model * u * u, model * v * v, by_x * y - by_y * x, turning * x],
        axis=2,
    )
    return model - fields, jacobian


def _inside(p: Array, side: int) -> Array:
    """The parameters with the centre in the field, widths between a pixel and two sides, and f at most half a cycle a pixel."""
    edge = (side - 1) / 2
    low = [-edge, -edge, np.log(NARROWEST), np.log(NARROWEST), -np.inf, 0.0]
    high = [edge, edge, np.log(2 * side), np.log(2 * side), np.inf, 0.5]
    return np.clip(p, low, high)
