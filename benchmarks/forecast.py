"""Fit the formula of the loss forecast, and measure how far off it is for a text that the fit has not seen.

    python benchmarks/forecast.py --data input.txt code.txt log.txt --points points.json

Trains small models on each text, and fits the four numbers of the formula in training/planning/loss_forecast.py
to their losses. Then it fits them without each text, and compares the predicted losses of that text with the measured
ones. Prints the losses, the numbers and the errors. The measured points are written to a file after each model, so
that the command can be stopped and continued.
"""

import argparse
import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import minigpt
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.training.planning.loss_forecast import compute_loss_ratio, count_matrix_weights, measure_trigram_loss

NAMES = ("n_embd", "n_head", "n_layer", "block_size", "batch_size", "max_iters")
GRID = [
    (16, 2, 2, 16, 16, 2000),
    (64, 4, 4, 32, 16, 1500),
    (64, 4, 2, 64, 16, 1000),
    (128, 4, 4, 64, 12, 400),
]
FIRST = 500  # the fit leaves out earlier steps, unless a training ends there
EXPONENTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)  # that the fit tries for a and b


def measure_text(path: str, points: dict[str, Any], file: Path) -> None:
    """Train the models on a text, and add N, D and the loss of every evaluation to the points."""
    text = points.setdefault(Path(path).name, {"losses": []})
    for number, row in enumerate(GRID):
        if any(point["row"] == number for point in text["losses"]):
            continue
        settings: dict[str, Any] = dict(zip(NAMES, row, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            run = minigpt.train(data=path, out=Path(folder) / "run", eval_interval=250, snapshots=0, **settings)
        if "trigram" not in text:
            dataset = Dataset(run.tokenizer.encode(find_corpus(path).text), run.config)
            text["trigram"] = measure_trigram_loss(dataset, run.tokenizer.vocab_size)
        N = count_matrix_weights(run.config.model)
        for metrics in run.metrics:
            if metrics.step >= min(FIRST, run.info.step):
                point = {"row": number, "N": N, "D": metrics.characters, "loss": metrics.validation_loss}
                text["losses"].append(point)
        file.write_text(json.dumps(points), encoding="utf-8")


class Points:
    """The measured losses of several texts as tensors, all (M,)."""

    def __init__(self, points: dict[str, Any]) -> None:
        rows = [
            (number, point["N"], point["D"], point["loss"], text["trigram"], 1 / len(text["losses"]))
            for number, text in enumerate(points.values())
            for point in text["losses"]
        ]
        columns = torch.tensor(rows, dtype=torch.float64).T
        self.text, self.N, self.D, self.loss, self.trigram, self.weight = columns

    def compute_errors(self, numbers: dict[str, float]) -> Tensor:
        """Return the relative error of each predicted loss, (M,)."""
        return compute_loss_ratio(self.N, self.D, numbers) * self.trigram / self.loss - 1

    def fit(self, chosen: Tensor) -> dict[str, float]:
        """Return the numbers with the smallest relative errors at the chosen points; each text has the same weight.

        For given a and b, the others solve a linear least squares problem.
        """
        weight = self.weight.sqrt()[chosen, None]
        best: tuple[float, dict[str, float]] = (math.inf, {})
        for a, b in itertools.product(EXPONENTS, EXPONENTS):
            terms = torch.stack([self.N**-a, self.D**-b], dim=1) * (self.trigram / self.loss)[:, None]
            matrix = weight * terms[chosen]
            solution = torch.linalg.lstsq(matrix, weight).solution
            error = float((matrix @ solution - weight).square().sum())
            A, B = solution[:, 0].tolist()
            if error < best[0]:
                best = error, {"A": A, "a": a, "B": B, "b": b}
        return best[1]


def main() -> None:
    """Train, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="text files")
    parser.add_argument("--points", type=Path, default=Path("points.json"), help="the file of the measured points")
    arguments = parser.parse_args()
    measured = json.loads(arguments.points.read_text()) if arguments.points.exists() else {}
    for path in arguments.data:
        measure_text(path, measured, arguments.points)
    points = Points(measured)
    everything = torch.ones_like(points.text, dtype=torch.bool)
    numbers = points.fit(everything)
    print(", ".join(f'"{name}": {number:.4g}' for name, number in numbers.items()))
    error = points.compute_errors(numbers).square().mean().sqrt()
    print(f"error at the {len(points.text)} points of the fit: {error:.1%} (rms)\n")
    print("| text | trigram | lowest loss | mean error, left out | largest |")
    print("| --- " * 5 + "|")
    errors = []
    for number, (name, text) in enumerate(measured.items()):
        left_out = points.text == number
        error = points.compute_errors(points.fit(~left_out))[left_out]
        errors.append(error)
        lowest = min(point["loss"] for point in text["losses"])
        print(f"| {name} | {text['trigram']:.2f} | {lowest:.2f} | {error.mean():+.1%} | {error.abs().max():.1%} |")
    print(f"\n19 of 20 losses of a text that was left out are within {torch.cat(errors).abs().quantile(0.95):.1%}")


if __name__ == "__main__":
    main()
