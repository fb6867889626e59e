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
    """One long parameter, of which the given ones become parts: a row (1, N) if they are matrices, else (N,)."""
    sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in parameters]
    values = parameters[0].new_zeros(sum(sizes))
    whole = nn.Parameter(values[None] if parameters[0].dim() >= 2 else values)
    whole.grad = torch.zeros_like(whole)
    parts = zip(parameters, values.split(sizes), whole.grad.view(-1).split(sizes), strict=True)
    for parameter, view, gradient in parts:
        view = view[: parameter.numel()].view_as(parameter)
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
    """AdamW (Loshchilov and Hutter 2019) over a model's parameters, long ones or as they are.

    Only matrices decay: biases and the gains of layer norm are left alone, as in GPT-2's successors.
    """

    def __init__(self, parameters: list[nn.Parameter], config: TrainingConfig, scaler: torch.amp.GradScaler) -> None:
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.parameters = parameters
        self.config = config
        self.scaler = scaler
        for p in parameters:  # what AdamW itself would make at its first step
            averages = {name: torch.zeros_like(p) for name in AVERAGES}
            self.adamw.state[p] = {"step": torch.zeros((), dtype=torch.float32, device=p.device), **averages}

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

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """The averages that AdamW keeps, themselves, under the names of the model's parameters; and the loss's scale.

        They say nothing of how the parameters lie in memory: what is saved by one process is read by many.
        """
        found = self.averages(model)
        found["step"] = self.adamw.state[self.parameters[0]]["step"].detach().cpu().clone().reshape(1)
        scale = self.scaler.state_dict() or {"scale": 1.0, "_growth_tracker": 0}
        found["scale"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float32)
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, into whose averages others have been read."""
        for parameter in self.parameters:
            self.adamw.state[parameter]["step"].copy_(state["step"][0])
        if self.scaler.is_enabled():
            scale, tracker = state["scale"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})

    def averages(self, model: nn.Module) -> dict[str, Tensor]:
        """What AdamW keeps of each of the model's parameters: parts of what it keeps of the long ones, if there are."""
        found = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                whole = parameter if parameter in self.adamw.state else self.holding(parameter)
                for kind in AVERAGES:
                    average = self.adamw.state[whole][kind]
                    if whole is not parameter:
                        start = parameter.storage_offset()
                        average = average.view(-1)[start : start + parameter.numel()].view_as(parameter)
                    found[f"{kind}.{name}"] = average
        return found

    def holding(self, part: nn.Parameter) -> nn.Parameter:
        """The long parameter that one of the model's is a part of."""
        storage = part.untyped_storage().data_ptr()
        return next(whole for whole in self.parameters if whole.untyped_storage().data_ptr() == storage)

    def zero_grad(self) -> None:
        """Set the gradients to zero, where they are."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
