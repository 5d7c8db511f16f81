"""Fix 2: a torchvision built for CUDA cannot be imported beside a torch built for the CPU.

Its native half does not load, and its Python half then describes operators that nobody has defined: `operator
torchvision::nms does not exist`, from any import of transformers' image processors. Defining the two operators (without
a kernel: nothing here calls them) is enough.

Superfluous where torchvision comes from the same index as torch, such as https://download.pytorch.org/whl/cpu; its
native half loads there, and this does nothing.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: The operators whose Python half is registered on import, with the signatures of torchvision's documentation.
SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))


@cache
def apply() -> Any:
    """Defines the operators if torchvision is installed and cannot define them itself.

    Returns the library that holds them (they vanish with it, so the cache keeps it), or None.
    """
    import torch

    spec = find_spec("torchvision")
    if torch.version.cuda is not None or "torchvision" in sys.modules or spec is None or spec.origin is None:
        return None
    if _loads(Path(spec.origin).with_name("_C.so")):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    return library


def _loads(native: Path) -> bool:
    import torch

    try:
        torch.ops.load_library(native)
    except (OSError, RuntimeError):
        return False
    return True
