"""`minigpt finetune` with instructions: what it writes, prints and refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import minigpt
from minigpt.cli.main import run as run_minigpt
from minigpt.finetuning.accuracy import Accuracy
from minigpt.finetuning.sft import TaskAccuracy, derive_sft_config
from minigpt.runs.run import Run


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_finetune_learns_instructions_and_refuses_impossible_tasks(
    trained: Run, command: Callable, tmp_path: Path
) -> None:
    quick = ["--max-iters", "30", "--eval-interval", "30", "--json"]
    file = write_lines(tmp_path / "a.jsonl", *({"instruction": f"say {n}", "output": f"{n % 3}"} for n in range(200)))
    done = command("finetune", trained.path, "--data", file, "--out", "new", *quick)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tasks"]["the examples"]["before"] is None
    assert found["own_loss_before"] == pytest.approx(trained.info.validation_loss, rel=1e-5)
    assert found["own_loss_after"] < found["own_loss_before"] + 0.3
    assert command("sample", "new", "--max-new-tokens", "9").returncode == 0
    assert command("info", "new").returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "new/tasks.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 30]
    assert all(0 <= line["accuracy"]["the examples"] <= 1 for line in lines)
    assert (tmp_path / "new/tasks.png").read_bytes().startswith(b"\x89PNG")
    again = command("finetune", "new", "--data", file, "--lora", "--out", "tuned", *quick)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["tasks"]["the examples"]["before"] is not None

    def refused(*arguments: object) -> str:
        done = command("finetune", trained.path, *arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    assert "lm_head gets rows for new tokens" in refused("--data", file, "--lora", "--target", "lm_head")
    assert "no layer is named 'x'" in refused("--data", file, "--lora", "--target", "x")
    assert "there is no task 'x'" in refused("--task", "x")
    assert "--ask needs --task" in refused("--data", file, "--ask", "upper+reverse")
    assert "'upper' cannot be tested without being learned" in refused("--task", "pairs", "--ask", "upper")
    assert "give exactly one of --data, --task and --preferences" in refused()
    assert "give exactly one of --data, --task and --preferences" in refused("--task", "upper", "--data", file)
    assert "block_size is too small" in refused("--task", "upper")
    file.write_text("nonsense")
    assert "line 1, is not JSON" in refused("--data", file)


@pytest.fixture(scope="module")
def lecture_wide(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A base that sees enough for the tasks, and has learned nothing."""
    folder = tmp_path_factory.mktemp("wide")
    settings = {"n_embd": 16, "n_head": 2, "n_layer": 1, "max_iters": 1, "eval_windows": 8, "snapshots": 0}
    return minigpt.train(data=text_file, out=folder / "base", device="cpu", **settings)


def test_the_defaults_of_tasks_are_those_that_teach_them(lecture_wide: Run, trained: Run) -> None:
    training = derive_sft_config(lecture_wide, ["reverse", "upper"], "full").training
    assert (training.max_iters, training.learning_rate, training.schedule) == (3000, 2e-3, "cosine")
    assert derive_sft_config(lecture_wide, ["upper"] * 4, "lora").training.max_iters == 12_000
    wide = Run(**{**vars(lecture_wide), "config": lecture_wide.config.override(n_embd=256)})
    assert derive_sft_config(wide, [], "lora").training.learning_rate == 5e-3 / 4
    assert derive_sft_config(wide, [], "full", max_iters=10).training.warmup_iters == 2
    given = derive_sft_config(wide, ["upper"], "full", schedule="linear", learning_rate=0.1, eval_interval=7).training
    assert (given.schedule, given.warmup_iters, given.learning_rate, given.eval_interval) == ("linear", 0, 0.1, 7)


def test_an_accuracy_must_be_above_that_of_the_most_frequent_answer() -> None:
    assert not TaskAccuracy(None, Accuracy(6, 100), Accuracy(5, 100)).is_better_than_majority
    assert TaskAccuracy(None, Accuracy(16, 100), Accuracy(5, 100)).is_better_than_majority


def test_a_useless_result_is_said_to_be_useless(
    lecture_wide: Run, text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    def finish(*arguments: object) -> tuple[str, str]:
        words = ["finetune", lecture_wide.path, *arguments, "--max-iters", 1, "--out", tmp_path / "run"]
        assert run_minigpt([*map(str, words)]) == 0
        return capfd.readouterr()

    out, said = finish("--task", "upper")
    assert "this run is useless: of upper it knows no more than the most frequent answer; try --max-iters 2" in said
    assert out.endswith(f"the run is in {tmp_path / 'run'}\n") and "chat" not in out
    out, said = finish("--data", text_file, "--learning-rate", 10)
    assert "this run is useless: the loss on the new text went from" in said and "next:" not in out
    out, said = finish("--data", text_file, "--learning-rate", 1e-3)
    assert "is useless" not in said and "next:" in out
