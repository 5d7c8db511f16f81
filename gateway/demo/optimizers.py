"""What changes the weights: Muon the matrices within layers, AdamW all else. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: Tables that are looked up rather than multiplied with.
TABLES = ("embed_tokens", "position_embedding")


class Optimizers:
    """Two optimizers with one rate.

    Muon turns each step of a matrix into one that is about orthogonal, of the length that AdamW's would have
    (https://kellerjordan.github.io/posts/muon). Scales of norms, tables and biases do not decay.
    """

    def __init__(self, model: Any, heads: nn.Module, weight_decay: float) -> None:
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and not any(t in name for t in TABLES)]
        taken = {id(p) for p in matrices}
        rest = [p for p in (*model.parameters(), *heads.parameters()) if id(p) not in taken]
        muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.all: tuple[Any, Any] = muon, torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the next steps."""
        for one in self.all:
            for group in one.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for one in self.all:
            one.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Changes all weights by their gradients."""
        for one in self.all:
            one.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """What `load_state_dict` takes."""
        return [one.state_dict() for one in self.all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Goes on from a state."""
        for one, state in zip(self.all, states, strict=True):
            one.load_state_dict(state)
