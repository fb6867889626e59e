"""`minigpt finetune` as it is used, and what it leaves."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_text

import minigpt
from minigpt.cli.finetune_report import print_own_loss
from minigpt.finetuning.adapter_files import CONFIG, WEIGHTS
from minigpt.runs.run import Run

QUICK = ["--max-iters", "30", "--eval-interval", "15", "--snapshots", "2"]


@pytest.fixture
def other_text(tmp_path: Path) -> Path:
    path = tmp_path / "other.txt"
    path.write_text(make_text(9000, seed=5).replace("the", "my my").replace("sea", "wind"))
    return path


def run_json(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "method", [[], ["--optimizer", "muon"], ["--lora"], ["--qlora", "--rank", "2"], ["--lora", "--dora", "--rslora"]]
)
def test_a_run_comes_of_it_and_the_base_stays(
    method: list[str], trained: Run, other_text: Path, command: Callable, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in trained.path.iterdir() if path.is_file()}
    rate = ["--learning-rate", "0.01"]
    found = run_json(
        command("finetune", trained.path, "--data", other_text, *method, *QUICK, *rate, "--out", "new", "--json")
    )
    assert before == {path.name: path.read_bytes() for path in trained.path.iterdir() if path.is_file()}
    assert found["validation_loss"] < found["loss_before"]
    assert found["base"] == str(trained.path)
    assert found["own_loss_before"] == pytest.approx(trained.info.validation_loss, rel=1e-5)
    assert found["own_loss_after"] > 0
    again = run_json(command("eval", "new", "--json"))
    assert again["validation_loss"] == pytest.approx(found["validation_loss"], rel=1e-4)
    if method[:1] in ([], ["--optimizer"]):
        assert found["adapter"] is None
        assert found["trained_parameters"] == found["parameters"]
        return
    assert found["trained_parameters"] < found["parameters"]
    assert {path.name for path in (tmp_path / found["adapter"]).iterdir()} == {CONFIG, WEIGHTS}
    if method[0] == "--lora":  # over the base in full the adapter gives the same run
        own = run_json(command("eval", trained.path, "--adapter", "new", "--json"))["validation_loss"]
        assert own == pytest.approx(found["own_loss_after"], rel=1e-4)
        off = run_json(command("eval", trained.path, "--adapter", "new/adapter", "--adapter-scale", "0", "--json"))
        assert off["validation_loss"] == pytest.approx(trained.info.validation_loss, rel=1e-5)


def test_adapters_are_blended(trained: Run, other_text: Path, command: Callable, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_json(command("finetune", trained.path, "--data", other_text, "--lora", *QUICK, "--out", name, "--json"))
    both = ["--adapter", "a:0.7", "--adapter", "b:0.3"]  # which are the same, so that together they are one
    losses = [
        run_json(command("eval", trained.path, *s, "--json"))["validation_loss"] for s in (both, ["--adapter", "a"])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert command("sample", trained.path, *both, "--max-new-tokens", "5").returncode == 0


def test_what_cannot_be_is_refused(trained: Run, other_text: Path, command: Callable, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = command(*arguments)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    tune = ["finetune", trained.path, "--data", other_text]
    assert "rank must be a whole number at least 1, not 0" in refused(*tune, "--lora", "--rank", "0")
    assert "rank must be at most 16" in refused(*tune, "--lora", "--rank", "17")
    assert "no layer is named 'q': choose from attention.qkv" in refused(*tune, "--lora", "--target", "q")
    assert "rank is a setting of adapters" in refused(*tune, "--rank", "4")
    assert "muon trains whole matrices" in refused(*tune, "--lora", "--optimizer", "muon")
    assert "name one" in refused(*tune, "--lora", "--qlora")
    (tmp_path / "strange.txt").write_text("漢字 " * 200)
    assert "that the base's vocabulary lacks: '字' '漢'; --new-characters add gives each a token" in refused(
        "finetune", trained.path, "--data", "strange.txt"
    )
    assert "there is no run" in refused("finetune", "nowhere", "--data", other_text)
    assert not (tmp_path / "runs").exists()
    run_json(command(*tune, "--lora", *QUICK, "--out", "new", "--json"))
    assert "is an adapter for another base" in refused("sample", "new", "--adapter", "new/adapter")
    assert "'much' is not the scale" in refused("sample", trained.path, "--adapter", "new:much")
    shutil.rmtree(tmp_path / "new" / "adapter")
    assert "is no adapter" in refused("sample", trained.path, "--adapter", "new")


def test_an_array_of_examples_is_learned_as_examples(trained: Run, command: Callable, tmp_path: Path) -> None:
    rows = [{"instruction": f"say {n}", "output": f"number {n}"} for n in range(80)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    done = command("finetune", trained.path, "--data", "rows.json", "--max-iters", "2", "--out", "told")
    assert done.returncode == 0, done.stderr
    assert "the examples in rows.json: " in done.stderr
    (tmp_path / "texts.json").write_text(json.dumps([{"text": "to be"}]))
    done = command("finetune", trained.path, "--data", "texts.json")
    assert done.returncode == 2
    assert "row 1, has none of messages, conversations, " in done.stderr


def test_from_python(trained: Run, other_text: Path, tmp_path: Path) -> None:
    from minigpt.finetuning.text_finetuning import train_on_text

    found = train_on_text(
        minigpt.load(trained.path), other_text, "lora", out=tmp_path / "new", max_iters=10, snapshots=0
    )
    opened = minigpt.load(tmp_path / "new")
    assert opened.generate("GULL:", max_new_tokens=20, seed=3) == found.run.generate("GULL:", max_new_tokens=20, seed=3)


@pytest.mark.parametrize(
    ("before", "after", "line", "warned"),
    [
        (1.5, 2.07, "forgotten: the loss on the base's own text rose by 0.57, from 1.5000 to 2.0700", True),
        (1.5, 1.6, "forgotten: the loss on the base's own text rose by 0.10, from 1.5000 to 1.6000", False),
        (1.5, 1.4, "kept: the loss on the base's own text fell by 0.10, from 1.5000 to 1.4000", False),
    ],
)
def test_what_a_fine_tuning_forgot_is_said_with_a_warning_where_it_is_much(
    before: float, after: float, line: str, warned: bool, capsys: pytest.CaptureFixture
) -> None:
    print_own_loss(before, after)
    shown = capsys.readouterr()
    assert shown.out == line + "\n"
    assert ("--lora forget less" in shown.err) == warned
