"""Lets Pillow read HEIC, where the plugin for it is installed (extra `heif`: its wheels are under the GPL)."""

from __future__ import annotations


def register() -> tuple[str, ...]:
    """Pillow's name of the format, in a tuple that is empty without the plugin.

    What else such a file may hold (thumbnails, depth) stays undecoded, and no threads are started.
    """
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return ("HEIF",)
