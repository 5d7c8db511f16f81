"""Makes of a clip what the engine gets: one mono WAV at 16 kHz, or several of a long one. Pure, slow.

The WAV is of 32-bit floats: the engine gets exactly the samples that were computed here, where 16 bits would round
them (and a rounding moves logprobs).
"""

from __future__ import annotations

import struct
from itertools import pairwise

import pybase64

from gateway.errors import MediaError, MediaTooLargeError, ShortMediaError
from gateway.media import budget, sound, split
from gateway.media.prepared import Piece, Prepared
from gateway.media.sound import SAMPLE_RATE, Samples
from gateway.settings import Family, LongAudio, Modality

#: Samples at 16 kHz that Gemma 3n and 4 hear at once, 30 s: `max_length` of their feature extractors in transformers,
#: which cut off what is beyond. Gemma 4's encoder-free 12B takes as many (`audio_seq_length` 750, 40 ms each).
LONGEST = 480_000

#: Samples at 16 kHz: 40 ms, one audio token of Gemma 4. Less may give no token at all, without an error.
SHORTEST = 640

MEDIA_TYPE = "audio/wav"

#: Seconds kept beyond what the model hears where a clip may be truncated: the resampler looks ahead.
_MARGIN = 1.0

_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_WAV_FLOAT = 3


def prepare(data: bytes, max_seconds: float, family: Family, policy: LongAudio, max_pieces: int) -> Prepared:
    """The clip as one piece, sent as it came where it is a mono WAV at 16 kHz with 16, 24 or float bits.

    A clip that is longer than the 30 s the model hears becomes pieces that together are the whole (`split`), its first
    30 s (`truncate`), or is refused (`reject`). Raises MediaError where it is no audio, broken, silent, shorter than a
    token or refused, MediaTooLargeError where it is longer than `max_seconds` or would be more than `max_pieces`.
    """
    kept = max_seconds if policy is LongAudio.SPLIT else LONGEST / SAMPLE_RATE + _MARGIN
    heard = sound.decode(data, max_seconds, kept)
    samples = heard.samples
    if samples.size < SHORTEST:
        raise ShortMediaError(
            f"the clip is too short: {samples.size} samples at 16 kHz; at least {SHORTEST} are needed"
        )
    if samples.size <= LONGEST:
        return Prepared((_piece(samples, 0, family, as_it_came=heard.ready),))
    if policy is LongAudio.SPLIT:
        return Prepared(_split(samples, family, max_pieces))
    if policy is LongAudio.TRUNCATE:
        return Prepared((_piece(samples[:LONGEST], 0, family),), truncated=heard.seconds)
    raise MediaError(
        f"the clip is {heard.seconds:.7g} seconds long and the model hears {LONGEST // SAMPLE_RATE} at once;"
        ' the field long_audio may be "split" or "truncate"'
    )


def encode(samples: Samples) -> bytes:
    """A WAV file of 32-bit floats at 16 kHz, one channel; the same samples give the same bytes."""
    body = samples.astype("<f4").tobytes()
    rate, width = SAMPLE_RATE, 4
    header = (b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, _WAV_FLOAT, 1, rate, rate * width, width, 8 * width)
    return _WAV_HEADER.pack(*header, b"data", len(body)) + body


def _split(samples: Samples, family: Family, max_pieces: int) -> tuple[Piece, ...]:
    fewest = -(-samples.size // LONGEST)
    starts = [0, *split.cuts(samples, LONGEST, SHORTEST)] if fewest <= max_pieces else []
    if not 0 < len(starts) <= max_pieces:
        raise MediaTooLargeError(
            f"the clip is {samples.size / SAMPLE_RATE:.7g} seconds long, {max(fewest, len(starts))} pieces;"
            f" the limit is {max_pieces} (media.max_clips)"
        )
    return tuple(_piece(samples[start:end], start, family) for start, end in pairwise([*starts, samples.size]))


def _piece(samples: Samples, start: int, family: Family, *, as_it_came: bool = False) -> Piece:
    return Piece(
        Modality.AUDIO,
        MEDIA_TYPE,
        None if as_it_came else pybase64.b64encode(encode(samples)),
        tokens=budget.audio_tokens(samples.size, family),
        start=start / SAMPLE_RATE,
        seconds=samples.size / SAMPLE_RATE,
        silent=sound.is_silent(samples),
    )
