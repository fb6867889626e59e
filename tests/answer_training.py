"""A short training on instructions, for tests that need a run which answers."""

import json
from pathlib import Path
from typing import Any

import minigpt
from minigpt.finetuning.sft import SFTResult, train_sft
from minigpt.runs.run import Run


def train_to_answer(base: Run, folder: Path, answers: str, max_iters: int, **settings: Any) -> SFTResult:
    """Train a copy of a run to answer with those letters in turn, whatever is asked."""
    lines = [json.dumps({"instruction": f"q{n}", "output": answers[n % len(answers)]}) + "\n" for n in range(200)]
    (folder / "a.jsonl").write_text("".join(lines))
    settings = {"max_iters": max_iters, "eval_interval": max_iters, **settings}
    return train_sft(minigpt.load(base.path), folder / "a.jsonl", out=folder / "run", **settings)
