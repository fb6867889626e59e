"""Exercise 4: one step of training."""

from typing import Any

import torch
from torch import Tensor, nn

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import GradientDescent, randint, randn
from minigpt.model.lecture import compute_next_token_loss

TEXT = """
Training repeats one step:

    1. forward      logits, loss = model(x, y)
    2. zero_grad    forget the gradients of the step before
    3. backward     compute the gradient of the loss at each parameter
    4. step         move each parameter a little against its gradient, so that the loss falls

PyTorch adds new gradients to old ones. Without zero_grad each step would follow the sum of all gradients so far.
The step returns the loss as a plain number: `loss.item()`.
"""

EXPERIMENT = """
from minigpt.config import ModelConfig
from minigpt.model.lecture import BigramLanguageModel

torch.manual_seed(0)
model = BigramLanguageModel(ModelConfig(vocab_size=5))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
x = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
y = torch.tensor([[1, 2, 3, 4, 0, 1, 2, 3]])  # after 0 comes 1, after 1 comes 2, ...
for step in range(41):
    loss = train_step(model, optimizer, x, y)
    if step % 10 == 0:
        print(f"step {step:>2}: loss {loss:.3f} {'#' * round(20 * loss)}")
"""


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Make one step of training.

    Args:
        model: `model(x, y)` returns the logits and the mean loss.
        optimizer: has the model's parameters.
        x: token ids (B, T), int64.
        y: the targets (B, T), int64.

    Returns:
        The loss of this batch before the step, as a plain number.
    """
    _, loss = model(x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class Table(nn.Module):
    """A small bigram model. In training its loss is doubled, as dropout would change it, but not at random."""

    def __init__(self, doubles: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(randn(5, 5, seed=3))
        self.doubles = doubles
        self.calls_with_gradient = 0
        self.backward_passes = 0
        self.table.register_hook(self.count_backward)

    def count_backward(self, gradient: Tensor) -> None:
        """Count the backward passes."""
        self.backward_passes += 1

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return the logits (B, T, V) and the loss."""
        logits = self.table[x]
        loss = compute_next_token_loss(logits, y)
        self.calls_with_gradient += torch.is_grad_enabled()
        return logits, loss * 2 if self.doubles and self.training and loss is not None else loss


def make_batches(count: int, B: int = 2, T: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Return batches of random ids and targets, (B, T) each."""
    return [(randint(5, B, T, seed=n), randint(5, B, T, seed=n + 50)) for n in range(count)]


def _train(my: Any, steps: int, B: int = 2, T: int = 3) -> dict[str, Any]:
    """Make some steps; return the losses and the weights."""
    model = Table()
    optimizer = GradientDescent(model.parameters(), lr=0.5)
    losses = [my.train_step(model, optimizer, x, y) for x, y in make_batches(steps, B, T)]
    kind = "a plain number" if all(isinstance(loss, float) for loss in losses) else type(losses[0]).__name__
    return {
        "the loss of each step": [loss if isinstance(loss, float | Tensor) else "no number" for loss in losses],
        "the weights afterwards": model.table,
        "the number of backward passes": model.backward_passes,
        "what it returns": kind,
    }


def _no_zero_grad(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    _, loss = model(x, y)
    loss.backward()
    optimizer.step()
    return loss.item()


def _step_before_backward(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    _, loss = model(x, y)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def _zero_after_backward(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    _, loss = model(x, y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def _no_backward(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    return model(x, y)[1].item()


def _loss_afterwards(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    train_step(model, optimizer, x, y)
    return model(x, y)[1].item()


def _tensor_loss(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> Any:
    _, loss = model(x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _ascent(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    _, loss = model(x, y)
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()
    return loss.item()


def _nothing_returned(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> None:
    train_step(model, optimizer, x, y)


def _item_not_called(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> Any:
    return _tensor_loss(model, optimizer, x, y).item


def _several_steps(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    for _ in range(10):
        loss = train_step(model, optimizer, x, y)
    return loss


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor, nn",
    references=(train_step,),
    cases=(
        Case("one step with a batch of shape (1, 1)", lambda my: _train(my, 1, 1, 1)),
        Case("one step", lambda my: _train(my, 1)),
        Case("three steps", lambda my: _train(my, 3)),
    ),
    mistakes=(
        Mistake(
            "zero_grad is forgotten: each step follows the sum of all gradients so far", {"train_step": _no_zero_grad}
        ),
        Mistake(
            "optimizer.step() comes before backward(): it uses the gradients of the step before",
            {"train_step": _step_before_backward},
        ),
        Mistake(
            "the parameters do not move: step() is missing or comes first, or zero_grad comes between backward() and "
            "step()",
            {"train_step": _zero_after_backward},
        ),
        Mistake(
            "nothing is returned: return loss.item()",
            {"train_step": _nothing_returned},
        ),
        Mistake(
            "inputs and targets are exchanged: model(x, y)",
            {"train_step": lambda model, optimizer, x, y: train_step(model, optimizer, y, x)},
        ),
        Mistake(
            "item is not called: loss.item() needs its brackets",
            {"train_step": _item_not_called},
        ),
        Mistake("nothing is trained: backward() is missing", {"train_step": _no_backward}),
        Mistake(
            "the loss is computed again after the step, instead of returned from before it",
            {"train_step": _loss_afterwards},
        ),
        Mistake(
            "the loss is returned as a tensor, which keeps its whole graph in memory: return loss.item()",
            {"train_step": _tensor_loss},
        ),
        Mistake("the function makes ten steps instead of one", {"train_step": _several_steps}),
        Mistake("the parameters go up the gradient instead of down: a sign is wrong", {"train_step": _ascent}),
    ),
    hints=(
        "Four lines: the forward pass, zero_grad, backward, step. Then return loss.item().",
        "model(x, y) returns two things; you need the second.",
        "_, loss = model(x, y); optimizer.zero_grad(); loss.backward(); optimizer.step()",
    ),
    experiment=EXPERIMENT,
)
