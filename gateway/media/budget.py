"""Gemma's own arithmetic: from the size of an image and the length of a clip to the soft tokens they cost. Pure."""

from __future__ import annotations

#: Soft tokens that Gemma 4 may spend on an image (its image processor's `max_soft_tokens`).
IMAGE_BUDGETS = (70, 140, 280, 560, 1120)
DEFAULT_IMAGE_BUDGET = 280
