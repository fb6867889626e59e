"""The training loop."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config
from minigpt.distributed.parallelism import set_gradient_sync
from minigpt.distributed.process_group import SINGLE, Processes
from minigpt.errors import DivergedError
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_format import Checkpoint
from minigpt.training.evaluation import estimate_loss
from minigpt.training.loss_spikes import require_finite
from minigpt.training.optimizer import Optimizer
from minigpt.training.precision import autocast
from minigpt.training.training_data import TrainingData
from minigpt.training.training_state import TrainingState
from minigpt.training.wrapping import WrappedModel, wrap_model


def train_model(
    model: Any,
    data: TrainingData,
    config: Config,
    callbacks: Sequence[Callback] = (),
    *,
    loss_module: Any = None,
    estimate: Callable[..., dict[str, float]] | None = estimate_loss,
    checkpoint: Checkpoint | None = None,
    processes: Processes = SINGLE,
) -> TrainingState:
    """Train a model in place, in memory only: this is the training loop. It ends at max_iters or when a callback asks.

    `train_run` calls it with the callbacks of a run.

    Args:
        model: a model on its device.
        data: what it trains on and is evaluated on.
        config: the settings of the training.
        callbacks: called in this order at each of the moments that `Callback` lists.
        loss_module: a module that computes the loss in place of the model, such as DPO's.
        estimate: computes the losses of an evaluation; None for no evaluations.
        checkpoint: what to resume from; the model must already have its weights.
        processes: the processes that train the model together.

    Returns:
        The state after the last step.

    Raises:
        DivergedError: a loss jumped or is not finite, and no callback went back to a checkpoint.
        DeviceError: the device cannot compute in the configured precision.
    """
    loss_module = loss_module or model
    model.train()
    with wrap_model(loss_module, config, processes) as wrapped:
        optimizer = Optimizer(wrapped.parameters, config.training)
        state = TrainingState(model, data, optimizer, config.training, processes, kernels=wrapped.kernels)
        if checkpoint:
            state.resume(checkpoint)
        for callback in callbacks:
            callback.on_train_begin(state)
        while True:
            try:
                if estimate and state.is_evaluation_due:
                    with state.clock.count_as_evaluation():
                        losses = processes.broadcast(estimate(loss_module, data, config.training.eval_windows))
                        for loss in losses.values():
                            require_finite(loss, state.step, config.training)
                        for callback in callbacks:
                            callback.on_evaluate(state, losses)
                if state.is_last:
                    break
                train_step(wrapped, state)
            except DivergedError as error:
                if not any(callback.on_divergence(state, error) for callback in callbacks):
                    raise
                continue
            for callback in callbacks:
                callback.on_step_end(state)
        for callback in callbacks:
            callback.on_train_end(state)
    return state


def train_step(model: WrappedModel, state: TrainingState) -> float:
    """Make one step: compute the gradients, clip them, and update the parameters. Return the mean loss of its batches.

    Raise DivergedError as `compute_gradients` does.
    """
    optimizer = state.optimizer
    with model.enter_step():
        mean_loss = compute_gradients(model, state)
        optimizer.set_learning_rate(state.step)
        optimizer.clip_gradients(state.config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    state.step += 1
    state.is_evaluated = False
    return mean_loss


def compute_gradients(model: WrappedModel, state: TrainingState) -> float:
    """Add up the gradients of `gradient_accumulation` batches, and return their mean loss in nats.

    The loss is the mean over all targets of all these batches, as if they were one batch. Batches of answers have
    different numbers of targets, so each counts by its number. The same holds for the processes that share a batch:
    DDP and FSDP average the gradients over them. Raise DivergedError if the losses have jumped and stay high, or one
    is not finite.
    """
    mean_loss = 0.0
    config, data, scaler, processes = state.config, state.data, state.optimizer.scaler, state.processes
    batches = [(*data.get_batch("train"), data.position) for _ in range(config.gradient_accumulation)]
    counts = [data.count_targets(y) for _, y, _ in batches]
    totals = [processes.sum(count) for count in counts]  # targets of all processes
    for n, (x, y, position) in enumerate(batches):  # x and y are (B, T)
        set_gradient_sync(model.module, n == len(batches) - 1)
        with autocast(model.device, config.precision):
            _, loss = model.forward(_move(x, model.device), _move(y, model.device))  # the mean over counts[n] targets
        scaler.scale(loss * (counts[n] / sum(totals) * processes.size)).backward()
        batch_loss = processes.sum(loss.item() * (counts[n] / totals[n]))
        state.spike_detector.check(batch_loss, state.step, position, config)
        mean_loss += batch_loss * (totals[n] / sum(totals))
    return mean_loss


def _move(tokens: Tensor, device: torch.device) -> Tensor:
    """Return the tokens on the device; a GPU copies them while the processor goes on."""
    if device.type == "cuda":
        return tokens.pin_memory().to(device, non_blocking=True)
    return tokens.to(device)
