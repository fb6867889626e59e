"""`minigpt serve`: the address, the token, the URL, and how it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cli_process import CommandProcess, run_command

from minigpt.runs.run import Run


@contextmanager
def serve(*arguments: object, cwd: Path, environment: dict[str, str] | None = None) -> Iterator[CommandProcess]:
    """Start the command on a free port; it is killed at the end of the block if it still runs."""
    process = CommandProcess(["serve", "--no-open", "--port", "0", *arguments], cwd, environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_url(process: CommandProcess) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_printed_url_has_the_token_and_a_signal_ends_the_server(
    trained: Run, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with serve(trained.path, cwd=tmp_path) as process:
        url, _, token = read_url(process).partition("#token=")
        assert url.startswith("http://127.0.0.1:") and len(token) >= 16
        models = httpx.get(f"{url}v1/models", headers={"Authorization": f"Bearer {token}"}).json()
        assert [model["id"] for model in models["data"]] == ["trained", "ngram:trained"]
        process.send_signal(number)
        assert process.wait() == status


def test_without_names_the_runs_of_the_folder_are_served(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "runs" / "mine")
    environment = {**os.environ, "MINIGPT_TOKEN": "a-token-of-my-own"}
    with serve(cwd=tmp_path, environment=environment) as process:
        url, _, token = read_url(process).partition("#token=")
        assert token == environment["MINIGPT_TOKEN"]
        models = httpx.get(f"{url}v1/models", headers={"Authorization": f"Bearer {token}"}).json()
        assert models["data"][0]["id"] == "mine"


def test_without_any_run_the_server_starts_and_says_how_to_make_one(tmp_path: Path) -> None:
    with serve(cwd=tmp_path) as process:
        url, _, token = read_url(process).partition("#token=")
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}api/v1/runs", headers=headers).json() == {"runs": []}
        assert httpx.get(f"{url}api/v1/trainings", headers=headers).json()["reason"] is None
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate()
    assert "there is no run here yet: train one on the page" in messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainings", "-1"], "--trainings"),
        (["nothing"], "'nothing' is not a run"),
        (["--port", "70000"], "--port"),
        (["{run}", "--host", "198.51.100.7"], "cannot listen on '198.51.100.7'"),
        (["{run}", "--host", "no such host"], "cannot listen on 'no such host'"),
        (["{run}", "--port", "{taken}"], "choose another --host or --port"),
        (["{run}", "{run}"], "two of the runs are named 'trained'"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(
    trained: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [word.format(run=trained.path, taken=port) for word in arguments]
        done = run_command(["serve", "--no-open", *words], tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("token", ["short", "", "sixteen letters but a space"])
def test_a_weak_token_is_refused(trained: Run, tmp_path: Path, token: str) -> None:
    done = run_command(["serve", trained.path], tmp_path, {**os.environ, "MINIGPT_TOKEN": token})
    assert done.returncode == 2 and "MINIGPT_TOKEN" in done.stderr


def test_a_missing_package_is_named_with_its_extra(trained: Run, tmp_path: Path) -> None:
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "uvicorn":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from minigpt.cli.main import run
sys.exit(run(["serve", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", script, trained.path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "pip install 'mini-gpt[web]'" in done.stderr
