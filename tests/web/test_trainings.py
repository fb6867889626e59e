"""The life of a training that the page starts: a process of its own, which outlives the server."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_process import CommandProcess
from conftest import TINY, TINY_FLAGS
from live_server import LiveServer, start_server

from minigpt.runs.run_directory import PROCESS
from minigpt.web.served_runs import ServedRuns

PATIENCE = 120.0  # seconds until a test gives up
PAUSE = 0.05  # seconds between two questions, so that the server and the test leave the processor to the training
SETTINGS = {**TINY, "n_layer": 1}
ENDLESS = {**SETTINGS, "max_iters": 100_000, "eval_interval": 50}


@pytest.fixture(autouse=True)
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings start faster if they need not load compiled loops."""
    monkeypatch.setenv("MINIGPT_KERNELS", "off")


def start(api: LiveServer, name: str, text: str | None, **settings: Any) -> Any:
    return api.post("/api/v1/trainings", name=name, text=text, settings=settings)


def upload(api: LiveServer, name: str, content: bytes) -> Any:
    return api.client.post("/api/v1/texts", params={"name": name}, content=content)


def find(api: LiveServer, name: str, after: int = -1) -> dict[str, Any]:
    answer = api.client.get(f"/api/v1/trainings/{name}", params={"after": after, "after_sample": after})
    assert answer.status_code == 200, answer.json()
    return answer.json()


def follow(api: LiveServer, name: str, is_reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for a training again and again until it is as a test wants it; fail after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not is_reached(training := find(api, name)):
        assert time.monotonic() < end and training["state"] != "failed", training
        threading.Event().wait(PAUSE)
    return training


def has_ended(training: dict[str, Any]) -> bool:
    return training["state"] not in ("starting", "running", "stopping")


def is_evaluated(training: dict[str, Any]) -> bool:
    return training["state"] == "running" and len(training["metrics"]) > 1


def test_a_training_outlives_its_server_and_another_server_stops_and_resumes_it(text: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with start_server(ServedRuns(folder=runs)) as api:
        stored = upload(api, "my verse", text.encode())
        assert (stored.status_code, stored.json()) == (201, {"name": "my verse", "bytes": len(text)})
        started = start(api, "first", "my verse", **ENDLESS)
        assert started.status_code == 201, started.json()
        assert started.json()["command"].startswith("minigpt train --preset lecture --data '")
        assert find(api, "first")["state"] == "starting"
        refused = start(api, "second", "my verse", **SETTINGS)
        assert refused.status_code == 503 and "1 training runs" in refused.json()["error"]["message"]
        training = follow(api, "first", is_evaluated)
        assert training["max_iters"] == 100_000 and training["seconds_left"] > 0 and not training["can_resume"]
        later = find(api, "first", after=training["step"] - 1)
        assert later["metrics"][0]["step"] >= training["step"]
        assert [run["name"] for run in api.client.get("/api/v1/runs").json()["runs"]] == ["first", "ngram:first"]
        assert api.post("/api/v1/trainings/first/resume", max_iters=5).status_code == 409
    with start_server(ServedRuns(folder=runs)) as api:
        (found,) = api.client.get("/api/v1/trainings").json()["trainings"]
        assert (found["name"], found["state"]) == ("first", "running")
        assert find(api, "first")["step"] >= training["step"]
        assert start(api, "second", "my verse", **SETTINGS).status_code == 503
        assert api.post("/api/v1/trainings/first/stop").status_code == 202
        stopped = follow(api, "first", lambda training: training["state"] == "interrupted")
        assert stopped["validation_loss"] and stopped["can_resume"] and stopped["error"] is None
        assert api.post("/api/v1/trainings/first/stop").status_code == 409
        step = stopped["metrics"][-1]["step"] + 100
        resumed = api.post("/api/v1/trainings/first/resume", max_iters=step)
        assert resumed.status_code == 201, resumed.json()
        done = follow(api, "first", lambda training: training["state"] == "finished")
        assert done["step"] == done["max_iters"] == step
        assert done["metrics"][: len(stopped["metrics"])] == stopped["metrics"]
        assert "resumed after step" in done["output"]
        again = api.post("/api/v1/trainings/first/resume")
        assert again.status_code == 400 and f"give max_iters above {step}" in again.json()["error"]["message"]
        name = start(api, "first", "my verse", **SETTINGS)
        assert name.status_code == 409 and "there is a run 'first' already" in name.json()["error"]["message"]


def test_a_training_of_a_terminal_is_followed_and_stopped_in_order(text_file: Path, tmp_path: Path) -> None:
    flags = [*TINY_FLAGS, "--max-iters", "1000000", "--eval-interval", "50", "--snapshots", "3"]
    with start_server(ServedRuns(folder=tmp_path / "runs")) as api:
        process = CommandProcess(["train", "--data", text_file, "--out", tmp_path / "runs" / "mine", *flags], tmp_path)
        try:
            while not (tmp_path / "runs" / "mine" / PROCESS).exists():
                assert process.poll() is None
                threading.Event().wait(PAUSE)
            training = follow(api, "mine", is_evaluated)
            assert training["snapshots"][0]["step"] == 0 and training["output"] == ""
            assert api.post("/api/v1/trainings/mine/stop").status_code == 202
            assert process.wait() == 143
        finally:
            process.kill()
            process.communicate()
        assert find(api, "mine")["state"] == "interrupted"


def test_a_training_that_fails_says_why(tmp_path: Path) -> None:
    with start_server(ServedRuns(folder=tmp_path / "runs")) as api:
        upload(api, "short", b"sea")
        assert start(api, "run", "short", **SETTINGS).status_code == 201
        training = follow(api, "run", has_ended)
        assert training["state"] == "failed" and "use a longer text" in training["error"], training
        assert api.post("/api/v1/trainings/run/resume").status_code == 400
        logs = tmp_path / "runs" / "playground" / "logs"
        (logs / "deleted.log").write_text("$ minigpt train\n")
        assert start(api, "run", "short", **SETTINGS).status_code == 201  # the name is free
        assert [log.name for log in logs.iterdir()] == ["run.log"]  # that of a run that was deleted is gone
        assert api.post("/api/v1/trainings/run/stop").status_code == 202
        training = follow(api, "run", has_ended)
        assert (training["state"], training["error"]) == ("failed", "the training was stopped before it began")


def test_a_forecast_is_that_of_the_command(text: str, tmp_path: Path) -> None:
    with start_server(ServedRuns(folder=tmp_path / "runs")) as api:
        upload(api, "verse", text.encode())
        answer = api.post("/api/v1/forecast", text="verse", settings=SETTINGS)
        assert answer.status_code == 200, answer.json()
        assert answer.json().keys() == {"seconds", "memory_bytes", "validation_loss_from", "validation_loss_to"}
        assert answer.json()["seconds"] > 0 and not (tmp_path / "runs" / "lecture").exists()


def test_a_process_that_does_not_train_the_run_is_never_signalled(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "runs" / "run")
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        (tmp_path / "runs" / "run" / PROCESS).write_text(str(bystander.pid))
        with start_server(ServedRuns(folder=tmp_path / "runs")) as api:
            assert find(api, "run")["state"] == "finished"
            answer = api.post("/api/v1/trainings/run/stop")
            assert answer.status_code == 409 and "'run' is not being trained" in answer.json()["error"]["message"]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
