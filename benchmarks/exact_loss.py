"""Time the exact loss of a text against training steps on the same tokens.

    python benchmarks/exact_loss.py

A training step does three times the arithmetic of its forward pass: the backward pass computes the gradients of both
factors of each product. So a third of a step's time is called the time of its forward pass here. The model has the
lecture's size and some others. The sides take turns.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from processor import describe_processor

from minigpt.acceleration import accelerate, enter_loop_step
from minigpt.config import Config
from minigpt.model import TrainedModel, build
from minigpt.model.loss import iterate_losses
from minigpt.system.device import keep_freed_memory
from minigpt.system.thread_waiting import avoid_spinning_when_busy

SIZES = ((65, 64, 4, 32), (65, 64, 4, 256), (65, 128, 4, 64))  # vocabulary, n_embd, n_layer, block_size
TOKENS = 2**15
TOKENS_PER_STEP = 512
ROUNDS = 5


def measure_time(work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds of a call, and those that this process computed."""
    start, computed = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - computed


def build_model(V: int, n_embd: int, n_layer: int, T: int) -> tuple[TrainedModel, bool]:
    """Return a model as a training run has it, and whether compiled loops train it."""
    sizes = {"vocab_size": V, "n_embd": n_embd, "n_layer": n_layer, "block_size": T}
    config = Config().override(**sizes, compiled_loops="on")
    model = build(config.model)
    return model, "training_loops" in accelerate(model, config)


def compare(V: int, n_embd: int, n_layer: int, T: int) -> None:
    """Print a row for each way of computing the exact loss."""
    model, has_loops = build_model(V, n_embd, n_layer, T)
    ids, threads = torch.randint(V, (TOKENS + 1,)), torch.get_num_threads()
    x, y = ids[:-1].view(-1, T), ids[1:].view(-1, T)
    windows = max(1, TOKENS_PER_STEP // T)

    def measure_loss(threads: int) -> None:
        for _ in iterate_losses(model, ids, threads=threads):
            pass

    def train() -> None:
        with enter_loop_step(adds_gradients=True) if has_loops else nullcontext():
            for xb, yb in zip(x.split(windows), y.split(windows), strict=True):
                model(xb, yb)[1].backward()
                model.zero_grad()

    sides = {"a batch for each thread": lambda: measure_loss(threads), "threads share a batch": lambda: measure_loss(1)}
    for work in (*sides.values(), train):
        work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*sides, "step")}
    for _ in range(ROUNDS):
        for name, work in (*sides.items(), ("step", train)):
            times[name].append(measure_time(work))
    for name in sides:
        pairs = list(zip(times[name], times["step"], strict=True))
        wall, cpu = (sorted(step[n] / 3 / own[n] for own, step in pairs) for n in (0, 1))
        speed = TOKENS / statistics.median(own[0] for own in times[name])
        cells = [f"{V}, {n_embd}, {n_layer}, {T}", name, f"{speed:,.0f}"]
        cells += [f"{statistics.median(r):.2f} ({r[0]:.2f} to {r[-1]:.2f})" for r in (wall, cpu)]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    print(f"{describe_processor()}\n")
    keep_freed_memory()  # as `minigpt eval` and `minigpt train` do, and `avoid_spinning_when_busy` below
    head = ["V, C, L, T", "exact loss", "predictions/s", "speed / that of training's forward", "the same by CPU time"]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    with avoid_spinning_when_busy():
        for sizes in SIZES:
            compare(*sizes)


if __name__ == "__main__":
    main()
