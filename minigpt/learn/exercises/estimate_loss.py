"""Exercise 16: estimate the loss."""

from typing import Any

import torch
from torch import Tensor, nn

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.exercises.training_step import Table, make_batches, train_step
from minigpt.learn.modules import GradientDescent

TEXT = """
The loss of one batch is noisy. A better estimate is the mean over several batches. An evaluation must not change the
model or its training:

    model.eval()          dropout is off, so that the whole network predicts
    torch.no_grad()       no gradients: faster, and nothing is added to the gradients of the training
    model.train()         afterwards training goes on with dropout

If dropout stays on, the loss looks worse than it is. If the model stays in evaluation mode, the rest of the training
has no dropout.
"""

EXPERIMENT = """
from minigpt.config import ModelConfig
from minigpt.model.lecture import GPTLanguageModel

torch.manual_seed(0)
model = GPTLanguageModel(ModelConfig(vocab_size=10, block_size=8, n_embd=16, n_head=2, n_layer=1, dropout=0.2))
batches = [(torch.randint(10, (4, 8)), torch.randint(10, (4, 8))) for _ in range(20)]
for x, y in batches[:3]:
    print(f"one batch:  {model(x, y)[1].item():.4f}")
for _ in range(2):
    print(f"20 batches: {estimate_loss(model, batches):.4f}")
print("the model still trains:", model.training)
"""


def estimate_loss(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the mean loss over some batches, with dropout off. Training goes on afterwards as before.

    Args:
        model: `model(x, y)` returns the logits and the mean loss. It is in training mode.
        batches: pairs of ids x and targets y, all of the same shape (B, T).

    Returns:
        The mean of the batches' losses, as a plain number.
    """
    model.eval()
    with torch.no_grad():
        losses = [model(x, y)[1].item() for x, y in batches]
    model.train()
    return sum(losses) / len(losses)


def _estimate(my: Any, count: int, B: int = 2, T: int = 3) -> dict[str, Any]:
    """Estimate a loss; return it, and what it left behind."""
    model = Table(doubles=True)
    model.train()
    with torch.enable_grad():  # restores the setting
        loss = my.estimate_loss(model, make_batches(count, B, T))
        records_gradients = torch.is_grad_enabled()
    return {
        "what it returns": "a plain number" if isinstance(loss, float) else type(loss).__name__,
        "the loss": loss,
        "the weights afterwards": model.table,
        "model.training afterwards": model.training,
        "the gradients afterwards": model.table.grad,
        "gradients are recorded afterwards": records_gradients,
        "calls of the model that record gradients": model.calls_with_gradient,
    }


def _without_eval(model: Any, batches: Any) -> float:
    with torch.no_grad():
        losses = [model(x, y)[1].item() for x, y in batches]
    return sum(losses) / len(losses)


def _stays_in_eval(model: Any, batches: Any) -> float:
    loss = estimate_loss(model, batches)
    model.eval()
    return loss


def _with_gradients(model: Any, batches: Any) -> float:
    model.eval()
    losses = [model(x, y)[1].item() for x, y in batches]
    model.train()
    return sum(losses) / len(losses)


def _trains(model: Any, batches: Any) -> float:
    optimizer: Any = GradientDescent(model.parameters(), lr=0.5)
    model.eval()
    losses = [train_step(model, optimizer, x, y) for x, y in batches]
    model.train()
    return sum(losses) / len(losses)


def _backward_only(model: Any, batches: Any) -> float:
    model.eval()
    losses = []
    for x, y in batches:
        _, loss = model(x, y)
        loss.backward()
        losses.append(loss.item())
    model.train()
    return sum(losses) / len(losses)


def _last_batch(model: Any, batches: Any) -> float:
    for batch in batches:
        loss = estimate_loss(model, [batch])
    return loss


def _sum_of_losses(model: Any, batches: Any) -> float:
    return estimate_loss(model, batches) * len(batches)


def _tensor_mean(model: Any, batches: Any) -> Tensor:
    return torch.tensor(estimate_loss(model, batches))


def _gradients_stay_off(model: Any, batches: Any) -> float:
    loss = estimate_loss(model, batches)
    torch.set_grad_enabled(False)
    return loss


def _train_inside(model: Any, batches: Any) -> float:
    model.eval()
    losses = []
    with torch.no_grad():
        for x, y in batches:
            losses.append(model(x, y)[1].item())
            model.train()
    return sum(losses) / len(losses)


def _return_inside(model: Any, batches: Any) -> float:
    loss = estimate_loss(model, batches[:1])
    model.eval()
    return loss


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor, nn",
    references=(estimate_loss,),
    cases=(
        Case("one batch of shape (1, 1)", lambda my: _estimate(my, 1, 1, 1)),
        Case("three batches", lambda my: _estimate(my, 3)),
    ),
    mistakes=(
        Mistake("dropout is left on: model.eval() is missing", {"estimate_loss": _without_eval}),
        Mistake("the model stays in evaluation mode: model.train() is missing", {"estimate_loss": _stays_in_eval}),
        Mistake("gradients are recorded, which costs memory: no_grad is missing", {"estimate_loss": _with_gradients}),
        Mistake("the evaluation trains: it calls optimizer.step()", {"estimate_loss": _trains}),
        Mistake(
            "the evaluation calls backward(), so its gradients are added to those of the training",
            {"estimate_loss": _backward_only},
        ),
        Mistake("the mean is a tensor: return a plain number, by .item()", {"estimate_loss": _tensor_mean}),
        Mistake(
            "gradients stay off for the training: with torch.no_grad(): switches them on again",
            {"estimate_loss": _gradients_stay_off},
        ),
        Mistake("model.train() comes too early, inside the loop", {"estimate_loss": _train_inside}),
        Mistake("the function returns inside the loop, so after the first batch", {"estimate_loss": _return_inside}),
        Mistake(
            "the sum is divided by another number than that of the batches",
            {"estimate_loss": lambda model, batches: estimate_loss(model, batches) * len(batches) / len(batches[0][0])},
        ),
        Mistake("only the last batch counts, instead of the mean over all", {"estimate_loss": _last_batch}),
        Mistake("the losses are added up and not divided by their number", {"estimate_loss": _sum_of_losses}),
    ),
    hints=(
        "The order: model.eval(), the loop over the batches, model.train().",
        "with torch.no_grad(): around the loop. Collect loss.item() of each batch.",
        "losses = [model(x, y)[1].item() for x, y in batches], and the mean is sum(losses) / len(losses).",
    ),
    experiment=EXPERIMENT,
)
