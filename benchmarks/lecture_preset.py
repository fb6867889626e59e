"""Train a preset and measure its exact validation loss, and the time of training and of evaluation.

    python benchmarks/lecture_preset.py --data input.txt --seeds 3

Prints a row for each seed, and the medians.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from processor import describe_processor

import minigpt


def main() -> None:
    """Train once for each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="lecture")
    parser.add_argument("--max-iters", type=int, help="fewer steps, to try the script out")
    arguments = parser.parse_args()
    fields = {"max_iters": arguments.max_iters} if arguments.max_iters else {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1337, 1337 + arguments.seeds):
            run = minigpt.train(arguments.preset, data=arguments.data, out=Path(folder) / "run", seed=seed, **fields)
            info = run.info
            assert info.validation_loss is not None
            rows.append((info.validation_loss, info.training_seconds, info.evaluation_seconds))
            print(f"seed {seed}: {info.validation_loss:.4f}", flush=True)
    threads = f"{info.threads} of {torch.get_num_threads()} threads"
    print(f"\n{info.data_characters:,} characters, torch {info.torch_version}, {threads}\n")
    print(f"{describe_processor()}\n")
    print("| seed | validation loss (exact) | training s | evaluation s | evaluation share |")
    print("| --- | --- | --- | --- | --- |")
    for seed, row in enumerate(rows, 1337):
        print(format_row(str(seed), *row))
    print(format_row("median", *(statistics.median(column) for column in zip(*rows, strict=True))))


def format_row(name: str, loss: float, training: float, evaluation: float) -> str:
    """Return a row of the table."""
    return f"| {name} | {loss:.4f} | {training:.1f} | {evaluation:.1f} | {evaluation / (training + evaluation):.1%} |"


if __name__ == "__main__":
    main()
