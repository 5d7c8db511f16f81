"""Production serving for Google's Gemma models: an OpenAI-compatible gateway in front of vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.launcher import launch

__all__ = ["launch"]


def __getattr__(name: str) -> Any:
    """`gateway.launch`, imported when it is first asked for: the gateway itself has no use for it."""
    if name == "launch":
        from gateway.launcher import launch

        return launch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
