"""What the requests about trainings refuse, and what they say of settings and texts. No training is started."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from live_server import LiveServer, start_server

from minigpt.config import Config, TrainingConfig
from minigpt.presets import PRESETS
from minigpt.runs.run import Run
from minigpt.system.process_file import name_process
from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import Limits
from minigpt.web.training_process import find_error

HOSTILE = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc/passwd",
    ".hidden",
    "a\x00b",
    "a\nb",
    "<script>",
    "a:b",
    "--out",
    "x.",
    "x" * 81,
)
LIMITS = Limits(upload_bytes=2000, stored_bytes=6000)


@pytest.fixture(scope="module")
def folder(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requests") / "runs"
    shutil.copytree(trained.path, folder / "trained")
    (folder / "<img src=x>").mkdir()
    for file in ("config.toml", "run.json"):
        shutil.copy(trained.path / file, folder / "<img src=x>")
    return folder


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[LiveServer]:
    with start_server(ServedRuns(folder=folder), LIMITS) as live:
        yield live


def upload(api: LiveServer, name: str, content: bytes) -> Any:
    return api.client.post("/api/v1/texts", params={"name": name}, content=content)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_lead_elsewhere_is_refused(api: LiveServer, folder: Path, name: str) -> None:
    before = sorted(folder.rglob("*"))
    for answer in (api.post("/api/v1/trainings", name=name), upload(api, name, b"sea")):
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "name"), error
    for path in ("stop", "resume"):
        assert api.post(f"/api/v1/trainings/{quote(name, safe='')}/{path}").status_code in (404, 405)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("fields", "status", "param", "message"),
    [
        ({}, 400, "name", "name must be a text"),
        ({"name": "trained"}, 409, "name", "there is a run 'trained' already: choose another name"),
        ({"name": "Playground"}, 400, "name", "the folder of the playground's own files"),
        ({"name": "x", "preset": "lectrue"}, 400, None, "did you mean 'lecture'?"),
        ({"name": "x", "text": "none"}, 404, "text", "there is no text 'none'"),
        ({"name": "x", "text": "../trained/config"}, 404, "text", "there is no text"),
        ({"name": "x", "settings": [1]}, 400, "settings", "settings must be an object"),
        (
            {"name": "x", "settings": {"batch_size": 0}},
            400,
            None,
            "batch_size must be a whole number at least 1, not 0",
        ),
        ({"name": "x", "settings": {"batch_size": "8"}}, 400, None, "batch_size must be a whole number"),
        ({"name": "x", "settings": {"batch_size": True}}, 400, None, "batch_size must be a whole number"),
        ({"name": "x", "settings": {"n_head": 3}}, 400, None, "64 is not divisible by 3"),
        ({"name": "x", "settings": {"encoding": "--help"}}, 400, None, "there is no encoding '--help'"),
        ({"name": "x", "settings": {"out": "/tmp"}}, 400, None, "there is no setting 'out'"),
        ({"name": "x", "settings": {"quantization": "nf4"}}, 400, None, "there is no setting 'quantization'"),
    ],
)
def test_a_wrong_field_is_refused_by_the_program_s_own_sentence(
    api: LiveServer, fields: dict[str, Any], status: int, param: str | None, message: str
) -> None:
    for path in ("trainings", "forecast"):
        if path == "forecast" and param == "name":
            continue
        answer = api.post(f"/api/v1/{path}", **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param), error
        assert message in error["message"] and "\n" not in error["message"]


def test_a_text_is_stored_once_and_never_replaced(api: LiveServer, folder: Path) -> None:
    assert upload(api, "sea", b"one").json() == {"name": "sea", "bytes": 3}
    assert upload(api, "sea", b"two!").json() == {"name": "sea-2", "bytes": 4}
    assert upload(api, "sea", b"two!").json()["name"] == "sea-2"
    assert upload(api, "מים 水", b"three").status_code == 201
    names = [text["name"] for text in api.client.get("/api/v1/texts").json()["texts"]]
    assert set(names) == {"sea", "sea-2", "מים 水"}
    texts = folder / "playground" / "texts"
    assert (texts / "sea.txt").read_bytes() == b"one"
    assert {path.suffix for path in texts.iterdir()} == {".txt"}
    assert "playground" not in [run["name"] for run in api.client.get("/api/v1/runs").json()["runs"]]


def test_a_text_that_is_too_large_or_empty_leaves_nothing(api: LiveServer, folder: Path) -> None:
    assert upload(api, "large", b"x" * 2000).status_code == 201
    for content in (b"x" * 2001, (b"x" * 500 for _ in range(5))):
        answer = upload(api, "larger", content)  # type: ignore[arg-type]
        assert answer.status_code == 413 and "larger than 2,000 bytes" in answer.json()["error"]["message"]
    assert upload(api, "empty", b"").status_code == 400
    assert api.client.post("/api/v1/forecast", content=b" " * (2**20 + 1)).status_code == 413
    files = [path.name for path in (folder / "playground" / "texts").iterdir()]
    assert "large.txt" in files and not [
        name for name in files if "larger" in name or ".tmp" in name or "empty" in name
    ]


def test_the_texts_have_a_limit_together(tmp_path: Path) -> None:
    with start_server(ServedRuns(folder=tmp_path), Limits(stored_bytes=10)) as api:
        assert upload(api, "one", b"123456").status_code == 201
        refused = upload(api, "two", b"12345")
        assert refused.status_code == 507 and refused.json()["error"]["code"] == "texts_full"
        assert "have 6 bytes, and their limit is 10: delete some" in refused.json()["error"]["message"]
        assert upload(api, "one", b"123456").status_code == 201  # it is there already
        assert upload(api, "two", b"1234").status_code == 201
    assert sorted(path.name for path in (tmp_path / "playground" / "texts").iterdir()) == ["one.txt", "two.txt"]


def test_the_settings_are_those_of_the_command_line(api: LiveServer) -> None:
    answer = api.client.get("/api/v1/settings").json()
    assert [preset["name"] for preset in answer["presets"]] == list(PRESETS)
    settings = {setting["name"]: setting for setting in answer["settings"]}
    about = {f: TrainingConfig.__dataclass_fields__[f].metadata["help"] for f in ("batch_size", "schedule")}
    assert {name: settings[name]["help"] for name in about} == about
    assert settings["schedule"]["choices"] == ["constant", "linear", "cosine", "trapezoid"]
    assert (settings["qkv_bias"]["type"], settings["dropout"]["type"]) == ("flag", "number")
    for preset in answer["presets"]:
        config = Config.from_preset(preset["name"])
        assert preset["settings"]["n_embd"] == config.model.n_embd
        assert preset["settings"].keys() == settings.keys() and "vocab_size" not in settings


def test_the_list_has_the_runs_and_what_can_be_done(api: LiveServer, folder: Path) -> None:
    answer = api.client.get("/api/v1/trainings").json()
    assert (answer["reason"], answer["max_trainings"], answer["upload_bytes"]) == (None, 1, 2000)
    assert {each["name"]: each["state"] for each in answer["trainings"]} == {
        "trained": "finished",
        "<img src=x>": "finished",
    }
    hostile = api.client.get("/api/v1/trainings/<img src=x>").json()
    assert hostile["name"] == "<img src=x>" and hostile["metrics"] == [] and not hostile["can_resume"]
    finished = api.client.get("/api/v1/trainings/trained", params={"after": 20, "after_sample": 0}).json()
    assert [each["step"] for each in finished["metrics"]] == [40, 60] and finished["step"] == 60
    assert 0 not in [each["step"] for each in finished["snapshots"]] and finished["can_resume"]
    assert api.client.get("/api/v1/trainings/nothing").status_code == 404
    for after in ("x", "-2", "1.5", "9" * 30):
        refused = api.client.get("/api/v1/trainings/trained", params={"after": after})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")


def test_a_damaged_run_says_what_is_damaged(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("{\n")
    with start_server(ServedRuns(folder=tmp_path)) as api:
        answer = api.client.get("/api/v1/trainings/run").json()
        assert "metrics.jsonl', line 1" in answer["error"] and answer["metrics"] == []


def test_a_finished_run_needs_more_steps_and_a_running_one_is_not_resumed(api: LiveServer, folder: Path) -> None:
    answer = api.post("/api/v1/trainings/trained/resume")
    assert answer.status_code == 400 and "give max_iters above 60" in answer.json()["error"]["message"]
    for value in (60, "x", 0, True):
        assert api.post("/api/v1/trainings/trained/resume", max_iters=value).status_code == 400
    with name_process(folder / "trained" / ".process"):
        assert api.client.get("/api/v1/trainings/trained").json()["state"] == "running"
        answer = api.post("/api/v1/trainings/trained/resume", max_iters=100)
        assert answer.status_code == 409 and "stop it first" in answer.json()["error"]["message"]
        answer = api.post("/api/v1/trainings", name="other")
        assert answer.status_code == 503 and "1 training runs" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("has_folder", "limit"), [(False, 1), (True, 0)])
def test_a_server_without_trainings_says_why(trained: Run, tmp_path: Path, has_folder: bool, limit: int) -> None:
    runs = ServedRuns(folder=tmp_path) if has_folder else ServedRuns([trained.path])
    with start_server(runs, Limits(trainings=limit)) as api:
        answer = api.client.get("/api/v1/trainings").json()
        assert answer["trainings"] == [] and "minigpt" in answer["reason"]
        for path in ("trainings", "forecast"):
            refused = api.post(f"/api/v1/{path}", name="x")
            assert (refused.status_code, refused.json()["error"]["message"]) == (400, answer["reason"])
        assert upload(api, "x", b"sea").status_code == 400
        assert not (tmp_path / "playground").exists()


def test_a_server_that_allows_no_trainings_lets_watch_them(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    with (
        name_process(tmp_path / "run" / ".process"),
        start_server(ServedRuns(folder=tmp_path), Limits(trainings=0)) as api,
    ):
        assert api.client.get("/api/v1/trainings/run").json()["state"] == "running"
        for action in ("stop", "resume"):
            answer = api.post(f"/api/v1/trainings/run/{action}")
            assert answer.status_code == 400 and "allows no trainings" in answer.json()["error"]["message"]


def test_the_requests_need_the_token(api: LiveServer) -> None:
    for method, path in (("GET", "trainings"), ("POST", "trainings"), ("POST", "texts?name=x"), ("POST", "losses")):
        answer = api.client.request(method, f"/api/v1/{path}", headers={"Authorization": ""}, content=b"{}")
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("", None),
        ("step 1\n", None),
        ("step 1\nminigpt: the loss is not finite\n\n", "the loss is not finite"),
        ("minigpt: reading 'x'\nstep 1\n", None),
        ("minigpt: stopped\n", None),
    ],
)
def test_the_error_of_a_process_is_its_last_sentence(output: str, error: str | None) -> None:
    assert find_error(output) == error


def test_an_n_gram_model_has_no_metrics(api: LiveServer) -> None:
    answer = api.client.get("/api/v1/runs/ngram:trained/metrics")
    assert answer.status_code == 400 and "has no training steps" in answer.json()["error"]["message"]


def events(api: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    return api.stream("/api/v1/losses", **fields)


def test_runs_are_measured_on_the_same_text(api: LiveServer, trained: Run, text: str) -> None:
    head, result = events(api, models=["trained"])
    exact = trained.evaluate()
    assert head == {"characters": exact.characters}
    assert result["loss"] == pytest.approx(exact.loss) and result["predictions"] == exact.predictions
    assert result["bits_per_byte"] == pytest.approx(exact.bits_per_byte)
    head, ours, counted = events(api, models=["trained", "ngram:trained"], text=text[:300])
    assert head == {"characters": 300} and ours["loss"] == pytest.approx(trained.loss(text[:300]))
    assert counted["model"] == "ngram:trained" and counted["bits_per_byte"] > 0


def test_a_run_that_cannot_be_measured_says_why_and_the_others_are_measured(api: LiveServer) -> None:
    _, missing, ours = events(api, models=["none", "trained"], text="the sea")
    assert "there is no run 'none'" in missing["reason"] and missing["loss"] is None
    assert ours["reason"] is None
    _, unknown = events(api, models=["trained"], text="sea Ω")
    assert "'Ω'" in unknown["reason"]
    _, short = events(api, models=["trained"], text="s")
    assert "nothing to predict" in short["reason"]


def test_a_missing_text_is_answered_for_a_reader_who_can_name_no_file(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "lost")
    info = json.loads((tmp_path / "lost" / "run.json").read_text())
    (tmp_path / "lost" / "run.json").write_text(json.dumps({**info, "data_paths": ["/nowhere/text.txt"]}))
    with start_server(ServedRuns(folder=tmp_path)) as api:
        for path, fields in (("losses", {"models": ["lost"]}), ("memorization", {"model": "lost", "text": "sea"})):
            answer = api.post(f"/api/v1/{path}", **fields)
            message = answer.json()["error"]["message"]
            assert answer.status_code == 400 and message.endswith("choose another run") and "data" not in message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "models"),
        ({"models": []}, "models"),
        ({"models": ["a"] * 17}, "models"),
        ({"models": [1]}, "models"),
        ({"models": ["trained"], "text": 1}, "text"),
    ],
)
def test_a_wrong_comparison_is_refused(api: LiveServer, fields: dict[str, Any], param: str) -> None:
    answer = api.post("/api/v1/losses", **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
