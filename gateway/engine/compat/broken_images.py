"""Fix 5: an image whose pixels are broken is answered, what could not be read of them being black.

vLLM turns an image as its EXIF says and lets no error out of that. Pillow reads the pixels at this very point: it says
once that they are broken, and afterwards hands out what it has. So the pixels are read before, where an error becomes
status 400, by which the gateway learns that an image it passed on unseen is broken.

Superfluous once `normalize_image` in vllm/multimodal/image.py lets errors out, or `ImageMediaIO.load_bytes` in
media/image.py reads before it calls it (0.32 does neither; no issue was found).
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def apply() -> None:
    """Wraps what `load_bytes` calls; the name is looked up anew at each call."""
    from vllm.multimodal.media import image as media

    normalize = media.normalize_image

    def normalize_image(image: Any) -> Any:
        try:
            image.load()
        except Exception as fault:  # decoders raise more than OSError, which is what `load_bytes` expects
            raise OSError(str(fault)) from fault
        return normalize(image)

    media.normalize_image = normalize_image
