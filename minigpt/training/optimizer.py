"""How the parameters move: AdamW over two long tensors, and the learning rate's way through the training."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minigpt.config import TrainingConfig

AVERAGES = ("exp_avg", "exp_avg_sq")
ALIGNED = 16  # numbers: each parameter begins where the processor's widest loads like to


def flatten(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that a model learns in two long ones: its matrices, and its vectors; without vectors in one.

    The model's parameters become views of them, and their gradients, zero at first, views of the long ones'
    gradients: to update them one by one takes a quarter of a small model's step.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in learned if p.dim() >= 2]
    vectors = [p for p in learned if p.dim() < 2]
    return [end_to_end(parameters) for parameters in (matrices, vectors) if parameters]


def end_to_end(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One long parameter (N,), of which the given ones become parts."""
    sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in parameters]
    whole = nn.Parameter(parameters[0].new_zeros(sum(sizes)))
    whole.grad = torch.zeros_like(whole)
    parts = zip(parameters, whole.data.split(sizes), whole.grad.split(sizes), strict=True)
    for parameter, values, gradient in parts:
        view = values[: parameter.numel()].view_as(parameter)
        parameter.data = view.copy_(parameter.data)
        parameter.grad = gradient[: parameter.numel()].view_as(parameter)
    return whole


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step, counted from 0: up in a line for warmup_iters, then down as the schedule says.

    A schedule that ends before the training does leaves its last rate.
    """
    end = (config.schedule_end or config.max_iters) - config.schedule_start
    step = max(0, min(step - config.schedule_start, end - 1))
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / config.warmup_iters
    done = (step - config.warmup_iters) / (end - config.warmup_iters)  # from 0 to 1
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}
    return config.learning_rate * fall[config.schedule]


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over what `flatten` made of a model.

    Only matrices decay: biases and the gains of layer norm are left alone, as in GPT-2's successors.
    """

    def __init__(self, parameters: list[nn.Parameter], config: TrainingConfig, scaler: torch.amp.GradScaler) -> None:
        matrices, *vectors = parameters
        groups = [
            {"params": [matrices], "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.parameters = parameters
        self.config = config
        self.scaler = scaler

    def step(self, step: int) -> None:
        """Update the parameters from their gradients, at that step's learning rate, and set the gradients to zero."""
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate(step, self.config)
        if self.config.grad_clip:
            self.scaler.unscale_(self.adamw)
            nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        self.scaler.step(self.adamw)
        self.scaler.update()
        self.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Copies, on the CPU, of the averages that AdamW keeps, before the first step zeros, and the loss's scale."""
        found = {}
        for n, parameter in enumerate(self.parameters):
            kept = self.adamw.state.get(parameter, {})
            found[f"{n}.step"] = torch.as_tensor(kept.get("step", 0.0)).cpu().clone()
            for name in AVERAGES:
                found[f"{n}.{name}"] = kept.get(name, torch.zeros_like(parameter)).detach().cpu().clone()
        scale = self.scaler.state_dict() or {"scale": 1.0, "_growth_tracker": 0}
        found["scale"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float32)
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` once gave."""
        for n, parameter in enumerate(self.parameters):
            averages = {name: state[f"{n}.{name}"].to(parameter.device) for name in AVERAGES}
            step = state[f"{n}.step"].to(parameter.device)  # where the fused update wants it
            self.adamw.state.pop(parameter, None)
            if step > 0:
                self.adamw.state[parameter] = {"step": step, **averages}
        if self.scaler.is_enabled():
            scale, tracker = state["scale"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})

    def zero_grad(self) -> None:
        """Set the gradients to zero, where they are."""
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()
