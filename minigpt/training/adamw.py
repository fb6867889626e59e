"""AdamW: PyTorch's own function, without the class `torch.optim.AdamW`, which imports PyTorch's compiler.

That import takes longer than a short training (docs/performance.md).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

EPSILON = 1e-8


class AdamW:
    """AdamW (Loshchilov and Hutter 2019), bit for bit `torch.optim.AdamW` with `fused=True`.

    Attributes:
        param_groups: for each group its "params", "lr" and "weight_decay". A gradient scaler reads them too.
        state: for each parameter its "step", which counts its updates, and the two moments "exp_avg" and "exp_avg_sq".
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        """Prepare to update the parameters.

        Args:
            groups: for each group its "params" and "weight_decay".
            lr: the learning rate.
            betas: how much of the first and the second moment stays at each step.
        """
        self.param_groups = [{"lr": lr, **group} for group in groups]
        self.betas = betas
        self.state = {p: _create_state(p) for group in self.param_groups for p in group["params"]}

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        beta1, beta2 = self.betas
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [self.state[p] for p in parameters]
            adamw(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                max_exp_avg_sqs=[],
                state_steps=[state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                maximize=False,
            )


def _create_state(parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the state of a parameter before its first update. Moments are sharded like the parameter."""
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
