"""Finds quiet points at which a long clip is cut into pieces. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Samples at 16 kHz over which loudness is measured: 200 ms, a pause between two words that can be heard.
_FRAME = 3_200

#: Samples from one measurement to the next: 10 ms.
_HOP = 160

#: A piece is at least this part of the longest one, so that pieces are few and each has something to say.
_LEAST = 2 / 3


def cuts(samples: NDArray[np.float32], longest: int, shortest: int) -> list[int]:
    """Where the second and every further piece begin, each piece from `shortest` to `longest` samples long.

    Empty where the clip is short enough as it is. Each cut is the quietest point of the last third of what the piece
    might have been; of equally quiet ones the last. `longest` is a second or more, `shortest` less than a tenth of it.
    """
    found: list[int] = []
    start = 0
    while samples.size - start > longest:
        first, last = start + int(_LEAST * longest), min(start + longest, samples.size - shortest)
        energies = energy(samples[first - _FRAME // 2 : last + _FRAME // 2])
        start = first + _HOP * int(np.flatnonzero(energies == energies.min())[-1])
        found.append(start)
    return found


def energy(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sum of squares over 200 ms from every 10 ms on: the square of `librosa.feature.rms`, times 3,200.

    From a running sum and not by librosa, whose import takes seconds and 230 MB in each worker, and fails
    where numba finds no folder to write its cache to, as in a container with a read-only file system.
    """
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return np.asarray(sums[_FRAME::_HOP] - sums[:-_FRAME:_HOP])
