"""How the parameters move: AdamW over two long tensors, Muon over stacks, and the learning rate's way."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minigpt.config import TrainingConfig
from minigpt.training.muon import Muon, momentum

AVERAGES = ("exp_avg", "exp_avg_sq")
ALIGNED = 16  # numbers: each parameter begins where the processor's widest loads like to


def flatten(model: nn.Module, stack: bool = False) -> list[nn.Parameter]:
    """All parameters that a model learns in two long ones: its matrices, and its vectors; without vectors in one.

    The model's parameters become views of them, and their gradients, zero at first, views of the long ones'
    gradients: to update them one by one takes a quarter of a small model's step. If so it is said, the matrices of
    the blocks are apart, for Muon, those of one shape in a `stacked` one.
    """
    of_blocks: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad and p.dim() >= 2:
            (of_blocks[p.shape] if stack and name.startswith("blocks.") else matrices).append(p)
        elif p.requires_grad:
            vectors.append(p)
    long = [end_to_end(parameters) for parameters in (matrices, vectors) if parameters]
    return long + [stacked(parameters) for parameters in of_blocks.values()]


def end_to_end(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One long parameter, of which the given ones become parts: a row (1, N) if they are matrices, else (N,)."""
    sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in parameters]
    values = parameters[0].new_zeros(sum(sizes))
    return made_of(values[None] if parameters[0].dim() >= 2 else values, parameters, sizes)


def stacked(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One parameter (n, r, c), of which the given ones, n matrices (r, c), become parts."""
    values = parameters[0].new_zeros(len(parameters), *parameters[0].shape)
    return made_of(values, parameters, [p.numel() for p in parameters])


def made_of(values: Tensor, parameters: list[nn.Parameter], sizes: list[int]) -> nn.Parameter:
    """A parameter with those values, of which the given ones become parts, each at the start of a so large stretch."""
    whole = nn.Parameter(values)
    whole.grad = torch.zeros_like(whole)
    values = values.view(-1)
    parts = zip(parameters, values.split(sizes), whole.grad.view(-1).split(sizes), strict=True)
    for parameter, view, gradient in parts:
        view = view[: parameter.numel()].view_as(parameter)
        parameter.data = view.copy_(parameter.data)
        parameter.grad = gradient[: parameter.numel()].view_as(parameter)
    return whole


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step, counted from 0: up in a line for warmup_iters, then down as the schedule says.

    It never falls below min_learning_rate. A schedule that ends before the training does leaves its last rate.
    """
    end = (config.schedule_end or config.max_iters) - config.schedule_start
    step = max(0, min(step - config.schedule_start, end - 1))
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / config.warmup_iters
    done = (step - config.warmup_iters) / (end - config.warmup_iters)  # from 0 to 1
    fall = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": 0.5 + 0.5 * math.cos(math.pi * done),
        "trapezoid": min(1.0, 2 * (1 - done)),
    }
    lowest = config.min_learning_rate
    return lowest + (config.learning_rate - lowest) * fall[config.schedule]


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over a model's parameters, long ones or as they are; Muon over stacks.

    Only matrices decay: biases and the gains of layer norm are left alone, as in GPT-2's successors. Muon's learning
    rate goes the same way as AdamW's, from a height of its own.
    """

    def __init__(self, parameters: list[nn.Parameter], config: TrainingConfig, scaler: torch.amp.GradScaler) -> None:
        stacks, matrices, vectors = ([p for p in parameters if max(p.dim(), 1) == n] for n in (3, 2, 1))
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
        dtype = torch.bfloat16 if config.precision == "bf16" else None
        self.muon = Muon(stacks, config.muon_learning_rate, config.weight_decay, dtype) if stacks else None
        self.both: list[torch.optim.Optimizer] = [self.adamw, self.muon] if self.muon else [self.adamw]
        self.parameters = parameters
        self.config = config
        self.scaler = scaler
        for p in matrices + vectors:  # what AdamW itself would make at its first step
            averages = {name: torch.zeros_like(p) for name in AVERAGES}
            self.adamw.state[p] = {"step": torch.zeros((), dtype=torch.float32, device=p.device), **averages}

    def step(self, step: int) -> None:
        """Update the parameters from their gradients, at that step's learning rate, and set the gradients to zero."""
        rate = learning_rate(step, self.config)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        if self.muon:
            [group] = self.muon.param_groups
            group["lr"] = self.config.muon_learning_rate * rate / self.config.learning_rate
            group["momentum"] = momentum(step)
        if self.config.grad_clip:
            for optimizer in self.both:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        for optimizer in self.both:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.zero_grad()

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """The averages that are kept, themselves, under the names of the model's parameters; and the loss's scale.

        They say nothing of how the parameters lie in memory: what is saved by one process is read by many.
        """
        found = self.averages(model)
        found["step"] = self.steps()[0].detach().cpu().clone().reshape(1)
        scale = self.scaler.state_dict() or {"scale": 1.0, "_growth_tracker": 0}
        found["scale"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float32)
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, into whose averages others have been read."""
        for steps in self.steps():
            steps.copy_(state["step"][0])
        if self.scaler.is_enabled():
            scale, tracker = state["scale"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})

    def steps(self) -> list[Tensor]:
        """How many steps AdamW has made, as it keeps it for each parameter."""
        return [state["step"] for state in self.adamw.state.values()]

    def averages(self, model: nn.Module) -> dict[str, Tensor]:
        """What is kept of each of the model's parameters: parts of what is kept of the long ones, if there are."""
        kept = {parameter: state for optimizer in self.both for parameter, state in optimizer.state.items()}
        found = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                whole = parameter if parameter in kept else self.holding(parameter)
                for kind, average in kept[whole].items():
                    if kind == "step":
                        continue
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
