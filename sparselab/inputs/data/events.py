"""Sound as events: levels that the bands of a spectrum cross [no torch]."""

from __future__ import annotations

import numpy as np

WINDOW, HOP, POINTS = 0.02, 0.01, 512  # seconds, seconds, points of the spectrum
LOWEST = 100.0  # hertz
FLOOR = 60.0  # decibels below the loudest band of a clip, where silence begins


def crossings(sound: np.ndarray, rate: int, bands: int, decibels: float) -> np.ndarray:
    """Events of one clip: a band fires up, or down, once for each level that its loudness crosses from frame to frame.

    Levels are ``decibels`` apart, counted from silence; a clip begins in silence. So a silicon cochlea and other sensors that
    tell changes alone work ("send on delta").

    Args:
        sound: (samples,) numbers of any scale
        rate: samples a second
        bands: bands, evenly spaced in mel from 100 Hz to half the rate
        decibels: distance of two levels

    Returns:
        (frames, 2 * bands) int64: of each frame the levels crossed upwards, then those crossed downwards.
    """
    window, hop = round(WINDOW * rate), round(HOP * rate)
    padded = np.pad(sound.astype(np.float64), (0, max(window - len(sound), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, POINTS)) ** 2 @ filters(rate, bands).T
    loudness = 10 * np.log10(np.maximum(power, power.max() * 10 ** (-FLOOR / 10)) + np.finfo(float).tiny)
    level = np.floor((loudness - (loudness.max() - FLOOR)) / decibels + 1e-6).astype(np.int64)
    moved = np.diff(level, axis=0, prepend=np.zeros((1, bands), np.int64))
    return np.concatenate([np.maximum(moved, 0), np.maximum(-moved, 0)], axis=1)


def filters(rate: int, bands: int) -> np.ndarray:
    """Triangular filters (bands, points / 2 + 1) over the spectrum, evenly spaced in mel."""
    low, high = mel(np.array([LOWEST, rate / 2])).tolist()
    centres = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    at = np.fft.rfftfreq(POINTS, 1 / rate)
    left, middle, right = centres[:-2, None], centres[1:-1, None], centres[2:, None]
    return np.clip(np.minimum((at - left) / (middle - left), (right - at) / (right - middle)), 0, None)


def mel(hertz: np.ndarray) -> np.ndarray:
    """The mel scale of ``hertz``, 2595 log10(1 + f / 700), element by element."""
    return 2595 * np.log10(1 + hertz / 700)


def binned(events: np.ndarray, steps: int) -> np.ndarray:
    """Sum ``events`` (frames, channels) within ``steps`` equal parts of their clip: (steps, channels) uint8, at most 255."""
    out = np.zeros((steps, events.shape[1]), np.int64)
    np.add.at(out, np.arange(len(events)) * steps // len(events), events)
    return np.minimum(out, 255).astype(np.uint8)
