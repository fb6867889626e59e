"""DPO: its loss is the paper's, its pairs are read or refused, and a model comes to prefer the chosen answers."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from answer_training import train_to_answer

import minigpt
from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.dpo_dataset import PreferenceDataset, PreferencePair, read_pairs
from minigpt.finetuning.dpo_loss import DPOModel, compute_dpo_loss, compute_log_probabilities
from minigpt.finetuning.examples import Example
from minigpt.model.loss import IGNORE_INDEX
from minigpt.runs.run import Run
from minigpt.tokenizers.chat_format import ChatTemplate


@pytest.fixture(scope="module")
def undecided(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that answers a or b with about the same probability."""
    return train_to_answer(trained, tmp_path_factory.mktemp("undecided"), "ab", max_iters=400, learning_rate=1e-2).run


def write_pairs(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_the_loss_equals_the_formula_of_the_paper_and_of_trl() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(4, 50, dtype=torch.float64) * 20
    for beta in (0.01, 0.1, 0.5, 2.0):
        found = compute_dpo_loss(*numbers, beta=beta)
        for n, (chosen, rejected, reference_chosen, reference_rejected) in enumerate(numbers.T.tolist()):
            ratios, reference = chosen - rejected, reference_chosen - reference_rejected
            expected = math.log1p(math.exp(-beta * (ratios - reference)))  # -log sigmoid
            assert found[n].item() == pytest.approx(expected, rel=1e-12)
    same = numbers[0]
    assert compute_dpo_loss(same, same, same, same).tolist() == [math.log(2)] * 50


def test_the_log_probability_of_an_answer_is_the_sum_over_its_tokens() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7, dtype=torch.float64)
    y = torch.randint(7, (3, 5))
    y[0, :3] = y[1, 4:] = IGNORE_INDEX
    expected = [
        sum(logits[b, t].log_softmax(0)[y[b, t]] for t in range(5) if y[b, t] != IGNORE_INDEX) for b in range(3)
    ]
    assert compute_log_probabilities(logits, y).tolist() == pytest.approx([float(e) for e in expected], rel=1e-12)


def test_the_reference_gets_no_gradient_and_the_first_loss_is_ln_2(undecided: Run) -> None:
    model = minigpt.load(undecided.path).model.train()
    model_and_reference = DPOModel(model, undecided.model, beta=0.3)
    assert {id(p) for p in model_and_reference.parameters()} == {id(p) for p in model.parameters()}
    x = torch.randint(9, (4, 6))
    margins, loss = model_and_reference(x, x)
    assert margins.tolist() == pytest.approx([0, 0], abs=1e-5)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    loss.backward()
    assert all(p.grad is None for p in undecided.model.parameters())
    assert any(p.grad.abs().max() > 0 for p in model.parameters() if p.grad is not None)
    with pytest.raises(ConfigError, match="beta must be a number above 0, not 0"):
        DPOModel(model, undecided.model, beta=0)


def test_a_batch_of_pairs_counts_its_pairs(undecided: Run) -> None:
    pair = PreferencePair(Example.from_pair("q1", "a"), Example.from_pair("q1", "b"))
    data = PreferenceDataset([pair] * 3, [pair], ChatTemplate(undecided.tokenizer), undecided.config)
    x, y = data.get_evaluation_batch("train", 3)
    assert len(x) == 6
    assert data.count_targets(y) == 3


def talk(*contents: str) -> list[dict[str, str]]:
    """Messages of the user and the assistant in turn."""
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


def test_the_prompt_of_a_pair_may_be_the_messages_that_both_answers_follow(tmp_path: Path) -> None:
    with_prompt = {"prompt": talk("a", "b", "c"), "chosen": "d", "rejected": "e"}
    without = {"chosen": talk("a", "b", "c", "d"), "rejected": talk("a", "b", "c", "e")}
    first, second = read_pairs(write_pairs(tmp_path / "a.jsonl", with_prompt, without))
    assert first == second


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", "line 2, is not JSON"),
        ({"chosen": "b", "rejected": "c"}, "prompt can be left out only if the other two are messages"),
        ({"chosen": [{"role": "user", "content": "a"}], "rejected": "c"}, "line 2: the roles are"),
        ({"chosen": talk("a", "b"), "rejected": talk("A", "c")}, "must be one answer each, to the same prompt"),
        ({"prompt": "a", "chosen": "b"}, "line 2: a pair needs prompt, chosen and rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "line 2: a pair needs"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same, so there is nothing to prefer"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "line 2, has an empty answer"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "line 2, has an empty instruction"),
        ({"prompt": [], "chosen": "b", "rejected": "c"}, "line 2: the roles are assistant"),
        ({"prompt": "a", "chosen": [], "rejected": "c"}, "line 2: the roles are user"),
        (
            {"prompt": "a", "chosen": [{"role": "assistant", "content": c} for c in "x"], "rejected": "y"} | {"x": 1},
            None,
        ),
        (
            {
                "prompt": "a",
                "chosen": [{"role": r, "content": "x"} for r in ("assistant", "user", "assistant")],
                "rejected": "y",
            },
            "line 2: chosen and rejected must be one answer each",
        ),
    ],
)
def test_a_line_that_is_not_a_pair_is_refused_by_its_place(line: object, error: str | None, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"}, line)
    if error is None:
        assert [pair.chosen.answer for pair in read_pairs(path)] == ["b", "x"]
        return
    with pytest.raises(DataError, match=error):
        read_pairs(path)


@pytest.mark.parametrize("method", [[], ["--lora"]])
def test_training_makes_the_chosen_answers_the_likelier_ones(
    method: list[str], undecided: Run, trained: Run, command: Callable, tmp_path: Path
) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "b", "rejected": "a"} for n in range(150)]
    file = write_pairs(tmp_path / "pairs.jsonl", *rows)
    tune = ["finetune", undecided.path, "--preferences", file, *method, "--max-iters", "60", "--eval-interval", "30"]
    done = command(*tune, "--learning-rate", "3e-3", "--beta", "0.5", "--out", "new", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["preferred"] == 1 > found["preferred_before"]
    assert found["validation_loss"] < 0.6 < math.log(2)
    assert found["bits_per_character"] is None
    typed = "q1\nq200\n"
    said = command("chat", "new", "--temperature", "0", "--max-new-tokens", "3", input=typed)
    if method:  # the run, and the adapter over what it was made from
        over = [undecided.path, "--adapter", "new"]
        again = command("chat", *over, "--temperature", "0", "--max-new-tokens", "3", input=typed)
        assert again.stdout == said.stdout, again.stderr
    else:
        answers = [line[:1] for line in said.stdout.splitlines()]
        assert "b" in answers, said.stderr
        assert "a" not in answers  # DPO makes b likelier than a, which need not be the likeliest of all
    assert command("info", "new").returncode == 0

    def refused(*arguments: object) -> str:
        done = command("finetune", *arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    if not method:
        assert "knows no instructions" in refused(trained.path, "--preferences", file)
        assert "beta must be a number above 0" in refused(undecided.path, "--preferences", file, "--beta", "0")
        assert "--beta needs --preferences" in refused(undecided.path, "--task", "upper", "--beta", "1")
        write_pairs(file, rows[0])
        assert "have only one first question: at least two are needed" in refused(undecided.path, "--preferences", file)
