"""`minigpt finetune` with instructions: what it writes, prints and refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

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
    assert found["own_loss_before"] == pytest.approx(trained.record.validation_loss, rel=1e-5)
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
    assert "'upper' cannot be asked without being learned" in refused("--task", "pairs", "--ask", "upper")
    assert "give exactly one of --data, --task and --preferences" in refused()
    assert "give exactly one of --data, --task and --preferences" in refused("--task", "upper", "--data", file)
    assert "too little at once" in refused("--task", "upper")
    file.write_text("nonsense")
    assert "line 1, is not JSON" in refused("--data", file)
