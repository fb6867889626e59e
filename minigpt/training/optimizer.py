"""AdamW over a few long parameters, and Muon over stacked matrices."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minigpt.config import TrainingConfig
from minigpt.training.adamw import AdamW
from minigpt.training.learning_rate import get_learning_rate
from minigpt.training.muon import Muon, get_momentum


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019), and Muon for stacked matrices, with one schedule.

    Only matrices decay, as in GPT-2's successors: biases and the gains of layer norm do not. Muon's learning rate is
    muon_learning_rate times AdamW's current rate, divided by learning_rate.

    Attributes:
        scaler: scales the loss in fp16, so that small gradients do not vanish; does nothing in other precisions.
    """

    def __init__(self, parameters: list[nn.Parameter], config: TrainingConfig) -> None:
        """Prepare to update the parameters.

        Args:
            parameters: those of `flatten_parameters`, or a model's own. Muon updates those with three dimensions.
            config: the settings of the optimizer and its schedule.
        """
        stacks, matrices, vectors = ([p for p in parameters if max(p.dim(), 1) == n] for n in (3, 2, 1))
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adamw = AdamW(groups, config.learning_rate, betas=(0.9, config.beta2))
        dtype = torch.bfloat16 if config.precision == "bf16" else None
        self.muon = Muon(stacks, config.muon_learning_rate, config.weight_decay, dtype) if stacks else None
        self.optimizers: list[AdamW | Muon] = [self.adamw, self.muon] if self.muon else [self.adamw]
        self.parameters = parameters
        self.config = config
        self.scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=config.precision == "fp16")

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rates, and Muon's momentum, for a step counted from 0."""
        rate = get_learning_rate(step, self.config)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        if self.muon:
            [group] = self.muon.param_groups
            group["lr"] = self.config.muon_learning_rate * rate / self.config.learning_rate
            group["momentum"] = get_momentum(step)

    def clip_gradients(self, max_norm: float) -> None:
        """Clip the norm of all gradients together to `max_norm`; 0 does not clip."""
        if max_norm:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it needs `param_groups` alone
            nn.utils.clip_grad_norm_(self.parameters, max_norm)

    def step(self) -> None:
        """Update the parameters from their gradients."""
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)  # type: ignore[arg-type]  # it needs `param_groups` and `step`
        self.scaler.update()

    def zero_grad(self) -> None:
        """Set the gradients to zero, in place."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the optimizer's tensors, under the names of the model's parameters, and the loss scale.

        The moments are the optimizer's own tensors, not copies. They have the shapes of the model's parameters, so any
        number of processes can load them.
        """
        found = self._find_moments(model)
        found["step"] = self._steps()[0].detach().cpu().clone().reshape(1)
        scale = self.scaler.state_dict() or {"scale": 1.0, "_growth_tracker": 0}
        found["scale"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float32)
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned, after other values were copied into its tensors."""
        for steps in self._steps():
            steps.copy_(state["step"][0])
        if self.scaler.is_enabled():
            scale, tracker = state["scale"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})

    def _steps(self) -> list[Tensor]:
        """AdamW's step counts, one for each of its parameters."""
        return [state["step"] for state in self.adamw.state.values()]

    def _find_moments(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the moments of each of the model's parameters: views, where the parameters are views."""
        states = {parameter: state for optimizer in self.optimizers for parameter, state in optimizer.state.items()}
        found = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                owner = parameter if parameter in states else self._find_owner(parameter)
                for kind, moment in states[owner].items():
                    if kind == "step":
                        continue
                    if owner is not parameter:
                        start = parameter.storage_offset()
                        moment = moment.view(-1)[start : start + parameter.numel()].view_as(parameter)
                    found[f"{kind}.{name}"] = moment
        return found

    def _find_owner(self, view: nn.Parameter) -> nn.Parameter:
        """Return the long parameter that one of the model's is a view of."""
        storage = view.untyped_storage().data_ptr()
        return next(flat for flat in self.parameters if flat.untyped_storage().data_ptr() == storage)
