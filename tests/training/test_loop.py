"""Training against the lecture's script, and what must not change it."""

import json
import random
from pathlib import Path

import pytest
import torch
from conftest import TINY

import minigpt
from minigpt.config import Config
from minigpt.data.dataset import Dataset
from minigpt.errors import DivergedError, OutOfMemoryError
from minigpt.model import build
from minigpt.model.gpt import GPT, join_heads
from minigpt.model.lecture import GPTLanguageModel
from minigpt.runs.run import Run
from minigpt.system.device import limit_threads
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.evaluation import estimate_loss
from minigpt.training.loop import train_model
from minigpt.training.resume import resume
from minigpt.training.training_state import TrainingState


def same_weights(a: Run, b: Run) -> bool:
    theirs = b.model.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.model.state_dict().items())


class Curve(Callback):
    """Keeps the validation losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        self.losses.append(losses["val"])


def fit_model(
    config: Config, text: str, weights: dict[str, torch.Tensor] | None = None
) -> tuple[torch.nn.Module, Curve]:
    """A model trained with that config, from those weights of the lecture's if there are any, and its curve."""
    tokenizer = CharTokenizer.from_text(text)
    config = config.override(vocab_size=tokenizer.vocab_size)
    torch.manual_seed(config.training.seed)
    model = build(config.model)
    if weights:
        model.load_state_dict(weights if isinstance(model, GPTLanguageModel) else join_heads(weights, config.model))
    curve = Curve()
    with limit_threads(1):
        train_model(model, Dataset(tokenizer.encode(text), config), config, [curve])
    return model, curve


SHORT = Config().override(**TINY | {"max_iters": 20, "eval_interval": 1, "snapshots": 0, "device": "cpu"})


def test_the_loop_gives_the_weights_of_the_lectures_script(text: str) -> None:
    model, _ = fit_model(SHORT.override(implementation="lecture"), text)
    tokenizer = CharTokenizer.from_text(text)
    config = SHORT.override(vocab_size=tokenizer.vocab_size)
    data = Dataset(tokenizer.encode(text), config)
    torch.manual_seed(config.training.seed)
    script = GPTLanguageModel(config.model)
    matrices = [p for p in script.parameters() if p.dim() == 2]
    vectors = [p for p in script.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for _ in range(20):
        xb, yb = data.get_batch("train")
        _, loss = script(xb, yb)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    for name, tensor in script.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_both_implementations_have_the_same_curve_from_the_same_weights(text: str) -> None:
    torch.manual_seed(9)
    vocab_size = CharTokenizer.from_text(text).vocab_size
    weights = GPTLanguageModel(SHORT.override(vocab_size=vocab_size).model).state_dict()
    readable, slow = fit_model(SHORT.override(implementation="lecture"), text, weights)
    running, fast = fit_model(SHORT, text, weights)
    assert isinstance(running, GPT)
    assert len(fast.losses) == 21
    assert fast.losses == pytest.approx(slow.losses, abs=1e-5)
    assert fast.losses[-1] < fast.losses[0] - 0.1
    for name, tensor in running.to_lecture().items():
        torch.testing.assert_close(tensor, readable.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_train_uses_the_configured_implementation(text_file: Path, tmp_path: Path) -> None:
    run = minigpt.train(
        data=text_file, out=tmp_path / "run", implementation="lecture", **TINY | {"max_iters": 2, "snapshots": 0}
    )
    assert isinstance(run.model, GPTLanguageModel)
    assert isinstance(minigpt.load(run.path).model, GPTLanguageModel)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_same_seed_gives_the_same_run_bit_for_bit(dropout: float, text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 10, "eval_interval": 10, "dropout": dropout, "snapshots": 2, "device": "cpu"}
    first, second, other = (
        minigpt.train(data=text_file, out=tmp_path / "run", seed=seed, **settings) for seed in (1, 1, 2)
    )
    assert [run.path.name for run in (first, second, other)] == ["run", "run-2", "run-3"]
    assert same_weights(first, second)
    assert first.info.validation_loss == second.info.validation_loss
    assert (first.path / "samples.txt").read_text() == (second.path / "samples.txt").read_text()
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()
    assert not same_weights(first, other)


def test_more_evaluations_do_not_change_the_weights(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 30, "dropout": 0.2, "device": "cpu"}
    rarely, often = (
        minigpt.train(data=text_file, out=tmp_path / "run", **settings | {"eval_interval": n, "snapshots": texts})
        for n, texts in ((30, 0), (7, 9))
    )
    assert [m.step for m in often.metrics] == [0, 7, 14, 21, 28, 30]
    assert same_weights(rarely, often)


def test_the_metrics_file_has_a_line_for_each_evaluation(trained: Run) -> None:
    lines = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 20, 40, 60]
    assert [line["characters"] for line in lines] == [step * 8 * 16 for step in (0, 20, 40, 60)]
    assert all(line["learning_rate"] == 1e-3 for line in lines)
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= trained.info.training_seconds


def test_a_run_keeps_its_last_weights_and_the_best_ones(tmp_path: Path) -> None:
    # So little text is soon known by heart: validation turns up again while training goes on falling.
    small = random.Random(0).choices("abcdefgh", k=400)
    (tmp_path / "small.txt").write_text("".join(small))
    settings = TINY | {"max_iters": 200, "learning_rate": 1e-2, "n_embd": 32, "snapshots": 0}
    run = minigpt.train(data=tmp_path / "small.txt", out=tmp_path / "run", **settings)
    best = min(run.metrics, key=lambda metrics: metrics.validation_loss)
    assert best.step < run.metrics[-1].step
    assert (run.path / "best.safetensors").exists()
    last, kept = minigpt.load(run.path), Run.open(run.path, weights="best")
    assert same_weights(run, last)
    assert not same_weights(run, kept)
    assert last.evaluate().loss == pytest.approx(run.info.validation_loss)
    data = Dataset(kept.tokenizer.encode("".join(small)), kept.config)
    assert estimate_loss(kept.model, data, run.config.training.eval_windows)["val"] == pytest.approx(
        best.validation_loss
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_best_weights(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 200, "eval_interval": 10, "learning_rate": 1e30, "snapshots": 0}
    with pytest.raises(
        DivergedError, match=r"the loss is (nan|inf) at step \d+: .*learning_rate below 1e\+30.*best"
    ) as caught:
        minigpt.train(data=text_file, out=tmp_path / "run", **settings)
    assert caught.value.exit_status == 1
    run = Run.open(tmp_path / "run", weights="best")
    assert run.info.status == "diverged"
    assert run.info.validation_loss is None
    assert run.evaluate().loss == pytest.approx(min(m.validation_loss for m in run.metrics), abs=0.1)


def test_a_model_too_large_for_any_memory_is_refused(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="do not fit in memory: lower batch_size"):
        minigpt.train(data=text_file, out=tmp_path / "run", n_embd=2**30, n_head=1)


def test_two_evaluations_are_no_curve(text_file: Path, tmp_path: Path) -> None:
    settings = {"data": text_file, "out": tmp_path / "run", "max_iters": 2, "eval_windows": 4}
    run = minigpt.train("bigram", **settings, eval_interval=2)
    assert len(run.metrics) == 2
    assert not (run.path / "loss.png").exists()
    longer = resume(run.path, max_iters=4)
    assert len(longer.metrics) == 3
    assert (run.path / "loss.png").exists()


@pytest.mark.filterwarnings("ignore:no installed font has")  # depends on the fonts of the machine
def test_unusual_characters_do_not_break_the_loss_plot(tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_text("$x^2$ _{ \\frac 漢字 👩‍👩‍👧 é \x1b[31m\u2028\n" * 30)
    run = minigpt.train("bigram", data=tmp_path / "odd.txt", out=tmp_path / "run", max_iters=4, eval_interval=2)
    assert (run.path / "loss.png").read_bytes().startswith(b"\x89PNG")
