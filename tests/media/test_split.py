"""Long clips are cut where it is quiet, and only where they must be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from librosa.effects import split
from librosa.feature import rms

from gateway.media.split import cuts, energy
from tests.media.samples import Samples

SECOND = 16_000
LONGEST = 30 * SECOND


def noise(seconds: float, *quiet: tuple[float, float]) -> Samples:
    """Noise, with the stretches from .. to, in seconds, at a thousandth of its loudness."""
    samples = np.random.default_rng(9).standard_normal(round(seconds * SECOND)).astype(np.float32)
    for start, end in quiet:
        samples[round(start * SECOND) : round(end * SECOND)] *= 0.001
    return samples


def in_seconds(samples: Samples) -> list[float]:
    return [cut / SECOND for cut in cuts(samples, LONGEST, 640)]


def test_a_clip_within_the_limit_is_not_cut() -> None:
    assert in_seconds(noise(30)) == []


def test_the_cut_is_in_the_middle_of_the_pause() -> None:
    (cut,) = in_seconds(noise(45, (23.0, 23.3)))
    assert cut == pytest.approx(23.15, abs=0.06)


def test_the_quieter_of_two_pauses_wins() -> None:
    samples = noise(45, (22.0, 22.3), (27.0, 27.3))
    samples[27 * SECOND : 28 * SECOND] *= 0.1
    (cut,) = in_seconds(samples)
    assert 27 <= cut <= 27.3


def test_a_pause_that_comes_too_early_is_not_used() -> None:
    (cut,) = in_seconds(noise(45, (5.0, 6.0)))
    assert 20 <= cut <= 30


def test_speech_is_never_cut_where_there_are_pauses() -> None:
    pauses = [(at, at + 0.4) for at in range(6, 300, 7)]
    found = in_seconds(noise(300, *pauses))
    assert len(found) >= 10
    assert all(any(start <= cut <= end for start, end in pauses) for cut in found)


def test_in_perfect_silence_pieces_are_as_long_as_they_may_be() -> None:
    assert in_seconds(np.zeros(95 * SECOND, np.float32)) == [30, 60, 90]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400_000), st.integers(16_000, 40_000), st.integers(0, 2**32 - 1))
def test_pieces_keep_to_the_limits_whatever_the_length(size: int, longest: int, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    ends = [0, *cuts(samples, longest, 640), size]
    assert all(0 < end - start <= longest for start, end in pairwise(ends))
    assert len(ends) == 2 or all(end - start >= 640 for start, end in pairwise(ends))


def test_loudness_is_what_librosa_measures() -> None:
    samples = noise(3, (1.0, 1.5))
    expected = rms(y=samples, frame_length=3_200, hop_length=160, center=False)[0]
    np.testing.assert_allclose(np.sqrt(energy(samples) / 3_200), expected, rtol=1e-4)


def test_what_librosa_holds_for_speech_is_not_cut() -> None:
    samples = noise(120, *((at, at + 0.4) for at in range(6, 120, 7)))
    spoken = split(samples, top_db=30)
    assert len(spoken) == 18
    assert not any(start < cut < end for cut in cuts(samples, LONGEST, 640) for start, end in spoken)
