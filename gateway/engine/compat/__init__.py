"""The vLLM plugin: mends a fault of vLLM 0.32, and four more that Gemma meets on its CPU backend.

vLLM finds it by two entry points of one name, `gemma_gateway` (VLLM_PLUGINS, where it is set, must hold that name), and
calls both in every process: `platform` when the platform is first looked at, before anything imports transformers;
`register` before the model is built. Each fix is a module here, is applied once in a process, and says what will make
it superfluous. On a GPU only `broken_images` is applied; the tool parser that `register` adds is there too.
VLLM_TARGET_DEVICE=cpu in the environment makes vLLM skip `platform`.
"""

from __future__ import annotations


def platform() -> None:
    """Prepares this process for importing torchvision. Names no platform to vLLM: it returns None.

    To be called as well by whatever imports transformers without vLLM.
    """
    from gateway.engine.compat import torchvision_schemas

    torchvision_schemas.apply()


def register() -> None:
    """Adds our tool parser and lets broken images be refused, on any hardware; the other fixes are for the CPU."""
    from vllm.platforms import current_platform
    from vllm.tool_parsers import ToolParserManager

    from gateway.engine.compat import broken_images
    from gateway.engine.gemmas import TOOL_PARSER

    broken_images.apply()
    ToolParserManager.register_lazy_module(TOOL_PARSER, "gateway.engine.guided_tools", "Gemma4GuidedToolParser")

    if not current_platform.is_cpu():
        return
    from gateway.engine.compat import contiguous_gemm, image_attention, resampler

    contiguous_gemm.apply()
    image_attention.apply()
    resampler.apply()
