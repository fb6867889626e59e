"""Exercise 23: train a GPT of the learner's own parts, by the learner's own loop."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Case, Exercise, Mistake, WorkbookError
from minigpt.learn.exercises.batches import get_batch
from minigpt.learn.exercises.training_step import train_step
from minigpt.learn.exercises.vocabulary import build_vocabulary, decode, encode
from minigpt.learn.modules import randint
from minigpt.learn.outcomes import require
from minigpt.learn.parts import list_own_parts, load_part
from minigpt.model.lecture import GPTLanguageModel

SECONDS = 120.0
SAMPLE_CHARACTERS = 300
GOAL = 2.0  # nats per character
OWN_PARTS = (
    "get_batch",
    "compute_next_token_loss",
    "train_step",
    "Head",
    "MultiHeadAttention",
    "FeedForward",
    "Block",
    "GPTLanguageModel",
)
RUNGS = (  # docs/ladder.md: 5,000 steps each
    ("uniform guess", 4.1744),
    ("character frequencies", 3.3473),
    ("bigram, learned", 2.4850),
    ("one head", 2.3550),
    ("multi-head", 2.1716),
    ("+ feed-forward", 2.0087),
    ("the lecture's GPT", 1.8166),
)

TEXT = """
Now all parts together: your GPT, trained by your loop on Tiny Shakespeare, for two minutes. It must reach a validation
loss below 2.0 nats per character. The check shows your loss beside those of simpler models, and a text that your GPT
writes.

    until the time is over:
        draw starts      torch.randint(len(data) - block_size, (batch_size,))
        cut a batch      get_batch(data, starts, block_size)
        make a step      train_step(model, optimizer, x, y)

You choose the settings: the width, the number of blocks and heads, block_size, batch_size and the learning rate. On
two CPU cores a small model that makes many steps beats a large one that makes few. A learning rate that falls towards
the end helps. time.monotonic() is the clock.

`minigpt learn check 23` first runs the function for a second on a small text, and then for two minutes on Tiny
Shakespeare (or input.txt in this folder, or --data FILE).
"""

EXPERIMENT = """
torch.manual_seed(0)
data = torch.arange(5000) % 10
model = train_gpt(data, vocab_size=10, seconds=5.0)
logits, _ = model(torch.tensor([[1, 2, 3]]))
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, trained on 0, 1, ..., 9, 0, 1, ...")
print("after 1, 2, 3 comes", logits[0, -1].argmax().item())
"""


def train_gpt(data: Tensor, vocab_size: int, seconds: float) -> nn.Module:
    """Train a GPT for some time.

    Args:
        data: the ids of the training text, (N,), int64.
        vocab_size: the number of different tokens.
        seconds: how long to train. Return when they are over.

    Returns:
        The trained GPTLanguageModel.
    """
    config = ModelConfig(vocab_size=vocab_size, n_embd=64, n_head=2, n_layer=2, block_size=32)
    model = GPTLanguageModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    start = time.monotonic()
    while (share := (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * 0.5 * (1 + math.cos(math.pi * share))
        starts = torch.randint(len(data) - config.block_size, (32,))
        x, y = get_batch(data, starts, config.block_size)
        train_step(model, optimizer, x, y)
    return model


def measure_loss(model: Any, ids: Tensor, block_size: int, windows: int | None = None) -> float:
    """Return the mean loss of predicting a text in windows that do not overlap, in nats.

    Args:
        model: `model(x)[0]` are the logits (B, T, V).
        ids: the text, (N,).
        block_size: T.
        windows: the largest number of windows; None for all of them.
    """
    count = (len(ids) - 1) // block_size
    x = ids[: count * block_size].view(count, block_size)[:windows]
    y = ids[1 : count * block_size + 1].view(count, block_size)[:windows]
    total = 0.0
    model.eval()
    with torch.no_grad():
        for inputs, targets in zip(x.split(128), y.split(128), strict=True):
            logits, _ = model(inputs)
            total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
    return total / y.numel()


def try_out(my: Any, text: str, say: Callable[[str], None], seconds: float = SECONDS) -> str:
    """Train the learner's GPT on a text, and measure its validation loss.

    Args:
        my: the learner's file.
        text: the text.
        say: is called with what happens.
        seconds: how long to train.

    Returns:
        The loss, beside the rungs of the ladder, and a text that the GPT writes.

    Raises:
        WorkbookError: a part is the package's, the training took too long, or the loss is too high.
    """
    missing = [name for name in OWN_PARTS if name not in list_own_parts()]
    if missing:
        raise WorkbookError(
            f"Your GPT still uses the package's {', '.join(missing)}: first pass the exercises that write them."
        )
    stoi, itos = build_vocabulary(text)
    ids = torch.tensor(encode(text, stoi))
    boundary = int(0.9 * len(ids))
    say(f"training for {seconds:g} seconds on {boundary:,} characters …")
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # imports PyTorch's compiler, which takes seconds
    torch.manual_seed(1337)
    start = time.monotonic()
    model = my.train_gpt(ids[:boundary], len(stoi), seconds)
    elapsed = time.monotonic() - start
    if elapsed > 1.25 * seconds + 5:
        raise WorkbookError(
            f"train_gpt took {elapsed:.0f} seconds instead of {seconds:g}: look at the clock each step."
        )
    say("measuring the validation loss …")
    loss = measure_loss(model, ids[boundary:], require_model(model, len(stoi)).block_size)
    table = format_rungs(loss)
    if not loss < GOAL:
        raise WorkbookError(
            f"The validation loss is {loss:.4f}, and must be below {GOAL}: try other settings, such as those of "
            f"minigpt learn hint 23.\n{table}"
        )
    sample = write_sample(my.__file__, model, stoi, itos)
    return f"The validation loss of your own GPT is {loss:.4f} nats per character.\n{table}\n\nIt writes:\n{sample}"


def write_sample(file: str, model: nn.Module, stoi: dict[str, int], itos: dict[int, str]) -> str:
    """Return a text that the model writes, by the learner's own function of exercise 14 if it is done."""
    model.eval()
    first = torch.tensor([[stoi.get("\n", 0)]])
    idx = load_part(file, "append_sampled_tokens")(model, first, SAMPLE_CHARACTERS)
    return decode(idx[0].tolist(), itos).strip()


def format_rungs(loss: float) -> str:
    """Return the learner's loss among the rungs of the ladder, as bars."""
    rows = sorted([*RUNGS, ("YOUR GPT, two minutes", loss)], key=lambda row: -row[1])
    return "\n".join(f"  {name:<24} {value:.4f} {'█' * round(10 * value)}" for name, value in rows)


TRIAL_SECONDS = 1.0


def _train_shortly(my: Any) -> dict[str, bool]:
    """Train for a moment on numbers in order; return what holds for every training."""
    data = torch.arange(3000) % 5
    start = time.monotonic()
    model = my.train_gpt(data, 5, TRIAL_SECONDS)
    elapsed = time.monotonic() - start
    config = require_model(model, vocab_size=5)
    require(
        elapsed < 3 * TRIAL_SECONDS + 2,
        f"train_gpt took {elapsed:.1f} seconds instead of {TRIAL_SECONDS:g}: look at the clock before each step, and "
        "make the steps shorter.",
    )
    return {
        "it trains until the seconds are over": elapsed > 0.5 * TRIAL_SECONDS,
        "it has learned to count to five": measure_loss(model, data, config.block_size, 20) < 1.55,
    }


def require_model(model: Any, vocab_size: int) -> Any:
    """Return the configuration of the model that train_gpt returned. Raise WorkbookError if it is no such model."""
    kind = type(model).__name__
    missing = ": is `return` missing?" if model is None else "."
    require(isinstance(model, nn.Module), f"train_gpt must return the model, and returns {kind}{missing}")
    config = getattr(model, "config", None)
    require(config is not None, "The model has no config, so the check does not know its block_size: see exercise 13.")
    size = model(randint(vocab_size, 2, 1))[0].shape[-1]
    require(
        size == vocab_size,
        f"The model has {size} logits at each position instead of {vocab_size}: set vocab_size in its ModelConfig.",
    )
    return config


def _untrained(data: Tensor, vocab_size: int, seconds: float) -> nn.Module:
    return GPTLanguageModel(ModelConfig(vocab_size=vocab_size, n_embd=16, n_head=2, n_layer=1, block_size=8))


def _learns_nothing(data: Tensor, vocab_size: int, seconds: float) -> nn.Module:
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        model = _untrained(data, vocab_size, seconds)
    return model


def _few_steps(data: Tensor, vocab_size: int, seconds: float) -> nn.Module:
    return train_gpt(data, vocab_size, 0.4 * seconds)


EXERCISE = Exercise(
    text=TEXT,
    imports="import math\nimport time\n\nimport torch\nfrom torch import Tensor, nn\n\n"
    "from minigpt.config import ModelConfig",
    parts=("get_batch", "train_step", "GPTLanguageModel"),
    references=(train_gpt,),
    cases=(Case("train_gpt(numbers in order, 5, seconds 1)", _train_shortly),),
    mistakes=(
        Mistake(
            "the model is not trained: does the loop run? It must end at time.monotonic() - start >= seconds",
            {"train_gpt": _untrained},
        ),
        Mistake("the training ends long before the seconds are over, and wastes the time", {"train_gpt": _few_steps}),
        Mistake(
            "the model learns nothing in its time: is the learning rate far too high or too low, or is a step of the "
            "training missing",
            {"train_gpt": _learns_nothing},
        ),
    ),
    hints=(
        "Make a ModelConfig, a GPTLanguageModel and torch.optim.AdamW(model.parameters(), lr=...).",
        "start = time.monotonic(); while time.monotonic() - start < seconds: one batch, one step.",
        "A good start: n_embd 64, 2 heads, 2 blocks, block_size 32, batch_size 32, a learning rate that falls from "
        "4e-3 to 0 along a cosine. group['lr'] = ... for group in optimizer.param_groups sets it.",
    ),
    experiment=EXPERIMENT,
    trial=try_out,
)
