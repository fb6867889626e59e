"""Untrusted files are read or refused with our own errors, and their control characters never reach a terminal."""

import dataclasses
import gzip
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_targets
import pytest
import safetensors.torch
from cli_process import in_terminal
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import minigpt
from minigpt.config import Config, ModelConfig, TrainingConfig
from minigpt.config_fields import format_value, get_choices, get_value_type
from minigpt.data.decompression import ZstdReader
from minigpt.data.documents import MAX_LINE_BYTES, DocumentReader
from minigpt.data.prepared_data import PreparedData
from minigpt.data.shards import INDEX
from minigpt.errors import ConfigError, DataError, ExchangeError, FileError, RunError
from minigpt.exchange.huggingface_import import load_gpt2
from minigpt.finetuning.dpo_dataset import PreferencePair, parse_pair
from minigpt.finetuning.examples import Example, parse_example
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Metrics, RunInfo, Snapshot
from minigpt.studies.ladder.directory import LadderDirectory
from minigpt.studies.look.memorization import find_verbatim, make_memorization_page
from minigpt.studies.look.token_loss import make_token_loss_page
from minigpt.studies.look.views import look
from minigpt.system.console import PipeSafeConsole
from minigpt.system.files import write_atomic
from minigpt.system.json_files import parse_dataclass, read_dataclass_lines
from minigpt.system.terminal import escape_control_characters
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.loading import load_tokenizer
from minigpt.training.resume import resume

FILES = 40  # mutated files for each target; benchmarks/fuzz.py reads thousands
settings.register_profile("ours", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("ours")


def test_mutated_files_are_read_or_refused() -> None:
    counts = list(fuzz_targets.fuzz(range(FILES), seed=0))
    findings = [finding for _, found in counts for finding in found.findings]
    assert not findings, "\n".join(findings)
    assert all(found.valid and found.refused for _, found in counts), counts


# Any value that Hypothesis can make.

CHARACTERS = st.characters(exclude_categories=[])  # unpaired surrogates too, which JSON can contain
BIDIRECTIONAL_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(CHARACTERS, max_size=8), inner, max_size=4),
    max_leaves=12,
)


def json_objects(names: list[str]) -> st.SearchStrategy[Any]:
    """Return JSON values, most of them objects with these names or some of them."""
    return (
        JSON
        | st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON))
        | st.fixed_dictionaries(dict.fromkeys(names, JSON))
    )


def possible_values(f: dataclasses.Field) -> st.SearchStrategy[Any]:
    """Return the values that a setting accepts, by its type and bounds."""
    if choices := get_choices(f):
        return st.sampled_from(choices)
    if get_value_type(f) is bool:
        return st.booleans()
    bounds = f.metadata["bounds"]
    low, high = bounds.get("at_least", bounds.get("above")), bounds.get("at_most", bounds.get("below"))
    if get_value_type(f) is int:
        return st.integers(low, high if high is not None else 2**63 - 1)
    return st.floats(low, high, exclude_min="above" in bounds, exclude_max="below" in bounds, allow_infinity=False)


SETTINGS = [f for part in (ModelConfig, TrainingConfig) for f in dataclasses.fields(part)]


@given(st.fixed_dictionaries({}, optional={f.name: possible_values(f) for f in SETTINGS}))
@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_any_configuration_is_equal_after_writing_and_reading(values: dict[str, Any]) -> None:
    values["n_embd"] = values.get("n_head", 4) * min(values.get("n_embd", 16), 2**50)
    try:
        config = Config().override(**values)
    except ConfigError:
        reject()
    assert Config.from_toml(config.to_toml(), complete=True) == config


@given(st.text())
def test_any_text_is_read_as_a_configuration_or_refused(text: str) -> None:
    for toml in (text, f"preset = {text}", f"[model]\nn_embd = {text}", f'architecture = "{text}"'):
        try:
            Config.from_toml(toml)
        except ConfigError as error:
            assert len(str(error)) < 1000


@pytest.mark.parametrize("kind", [Metrics, Snapshot, RunInfo])
@given(data=st.data())
def test_any_json_is_read_as_a_record_or_refused(kind: type, data: st.DataObject) -> None:
    content = data.draw(json_objects([f.name for f in dataclasses.fields(kind)]))
    try:
        found = parse_dataclass(kind, content, "'file'")
    except RunError as error:
        assert len(str(error)) < 1000
    else:
        assert dataclasses.asdict(found) == content


@given(json_objects(["instruction", "input", "output", "messages"]), json_objects(["prompt", "chosen", "rejected"]))
def test_any_json_is_read_as_an_example_or_refused(example: Any, pair: Any) -> None:
    for read, content, kind in ((parse_example, example, Example), (parse_pair, pair, PreferencePair)):
        try:
            found = read(content, "'file', line 1")
        except DataError:
            continue
        assert isinstance(found, kind)
        for each in (found,) if isinstance(found, Example) else (found.chosen, found.rejected):
            assert all(turn.text.encode() or turn.role == "system" for turn in each.turns)


@given(content=json_objects(["format", "kind", "characters", "special_tokens", "unknown", "model", "pre_tokenizer"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_that_is_no_tokenizer_is_refused(content: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(FileError):
        load_tokenizer(tmp_path)


@given(
    st.sets(CHARACTERS, min_size=1).map(sorted), st.lists(st.text(CHARACTERS, max_size=5), max_size=2), st.booleans()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_list_of_characters_is_a_tokenizer_or_refused(
    tmp_path: Path, characters: list[str], special: list[str], unknown: bool
) -> None:
    content = {"format": 1, "kind": "char", "characters": characters, "special_tokens": special}
    content |= {"unknown": characters[0]} if unknown else {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    try:
        tokenizer = load_tokenizer(tmp_path)
    except FileError:
        return
    ids = range(tokenizer.vocab_size)
    assert tokenizer.decode_bytes(ids).decode() == "".join(characters + special)
    assert tokenizer.encode("".join(characters)) == list(range(len(characters)))


@given(st.text(CHARACTERS) | st.text(st.characters(categories=["Cc", "Cf", "Cs"])))
def test_escaping_removes_every_control_character(text: str) -> None:
    shown_text = escape_control_characters(text)
    assert {c for c in shown_text if unicodedata.category(c) in ("Cc", "Cs")} <= set("\n\t")
    assert not {c for c in shown_text if unicodedata.bidirectional(c) in BIDIRECTIONAL_CONTROLS}
    assert escape_control_characters(shown_text) == shown_text
    assert not set("\x1b\x9b\x00\x7f\r\u202e\u2066") & set(shown_text)


@given(JSON | st.integers(min_value=10**5000) | st.just([10**5000]))
def test_any_value_is_short_in_a_message(value: Any) -> None:
    assert len(format_value(value)) <= 101


# Sizes are checked before memory is allocated for them.


def change_config(run: RunDirectory, old: str, new: str) -> None:
    text = run.config.read_text()
    assert old in text
    run.config.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("n_embd = 4", "n_embd = 1000000000"),
        ("vocab_size = 25", f"vocab_size = {2**40}"),
        ("block_size = 4", f"block_size = {2**40}"),
        ("n_layer = 1", "n_layer = 512"),
        ("[model]", "[model]\n" + ".".join("a" * 20_000) + " = 1"),  # takes the square of it in time and memory
        ("n_head = 2", f"n_head = [{'0x' + 'f' * 900}]"),
    ],
)
def test_a_config_larger_than_the_weights_is_refused(old: str, new: str, tmp_path: Path) -> None:
    change_config(fuzz_targets.make_run(tmp_path), old, new)
    with pytest.raises(RunError):
        Run.open(tmp_path)


def test_the_lecture_implementation_has_at_most_4096_heads() -> None:
    with pytest.raises(ConfigError, match="4,096 heads at most, not 131,072"):
        Config().override(implementation="lecture", n_embd=256, n_head=256, n_layer=512)


@pytest.mark.parametrize("size", [2**60, 2**64 - 1, 2**22 + 1])
def test_a_safetensors_header_that_is_too_long_is_refused(size: int, tmp_path: Path) -> None:
    run = fuzz_targets.make_run(tmp_path)
    run.model.write_bytes(size.to_bytes(8, "little") + b"{}" + b" " * 2**23)
    with pytest.raises(RunError, match="too many to be one"):
        Run.open(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "tokenizer.json", "config.toml", "metrics.jsonl"])
@pytest.mark.parametrize("content", ['{"a":' * 100_000, "[" * 100_000, "\n" * 2**20, "[]" * 2**20, "9" * 2**20])
def test_a_deeply_nested_or_long_file_is_refused_in_one_sentence(name: str, content: str, tmp_path: Path) -> None:
    fuzz_targets.make_run(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError) as caught:
        Run.open(tmp_path)
    assert len(str(caught.value)) < 1000


def test_json_lines_stop_at_the_first_damaged_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("\n" * 2**20)
    with pytest.raises(RunError, match="line 1 is damaged"):
        read_dataclass_lines(tmp_path / "metrics.jsonl", Metrics)


def test_an_adapter_whose_rank_does_not_fit_its_weights_is_refused(tmp_path: Path) -> None:
    config = fuzz_targets.make_adapter(tmp_path, "adapter_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 2**40}))
    weights = safetensors.torch.load_file(config.with_name("adapter_model.safetensors"))
    rest = {name: tensor for name, tensor in weights.items() if "lora_A" not in name}
    safetensors.torch.save_file(rest, config.with_name("adapter_model.safetensors"), {"format": "pt"})
    with pytest.raises(ExchangeError, match=r"is not complete: .*lora_A"):
        fuzz_targets.open_adapter(tmp_path)


def test_an_index_that_names_a_shard_twice_is_refused(tmp_path: Path) -> None:
    index = fuzz_targets.make_prepared_data(tmp_path) / INDEX
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"parts": content["parts"] * 2}))
    with pytest.raises(FileError, match="has an impossible value"):
        PreparedData(index.parent)


def frame(blocks: int) -> bytes:
    """A Zstandard frame of so many blocks of 128 KiB, each of which takes four bytes."""
    block = [(2**17 << 3 | 1 << 1 | last).to_bytes(3, "little") + b"a" for last in (0, 1)]
    return b"\x28\xb5\x2f\xfd\x00" + bytes([17 - 10 << 3]) + block[0] * (blocks - 1) + block[1]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst", "a.jsonl.zst", "a.parquet.gz"])
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(name: str, tmp_path: Path) -> None:
    many = 2**24 + 1
    (tmp_path / name).write_bytes(gzip.compress(b"a" * many) if name.endswith("gz") else frame(128))
    with pytest.raises(FileError, match="unpacks to more than 200 times its size"):
        sum(len(text) for text, _ in DocumentReader(allowed_bytes=2**22).read(tmp_path / name))


def test_a_well_compressed_small_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.zst").write_bytes(frame(20))
    assert sum(len(text) for text, _ in DocumentReader().read(tmp_path / "a.txt.zst")) == 20 * 2**17


def test_a_compressed_file_is_unpacked_in_small_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.zst").write_bytes(frame(2**12))  # half a gigabyte
    with (tmp_path / "a.zst").open("rb") as file:
        reader = ZstdReader(file)
        assert reader.readinto(bytearray(10)) == 10
        assert len(reader.unpacked) < 2**27


def test_a_zstandard_window_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([31 - 10 << 3]) + frame(1)[6:])
    with pytest.raises(FileError, match="damaged"):
        list(DocumentReader().read(tmp_path / "a.txt.zst"))


def test_a_line_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(MAX_LINE_BYTES + 1)
    with pytest.raises(DataError, match="is longer than"):
        list(DocumentReader().read(tmp_path / "a.jsonl"))


# Names and links must not lead out of the folder.

LINKED = [
    "config.toml",
    "run.json",
    "tokenizer.json",
    "model.safetensors",
    "metrics.jsonl",
    "best.safetensors",
    "checkpoints",
]


@pytest.mark.parametrize("name", LINKED)
def test_a_run_with_a_link_out_of_it_is_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = fuzz_targets.make_run(tmp_path / "run")
    if (run.path / name).exists():
        (run.path / name).rename(tmp_path / name)
    (run.path / name).symlink_to(tmp_path / name)
    with pytest.raises(RunError, match=f"{name}' is a link that leads out of its folder"):
        minigpt.load(run.path)


def test_links_to_a_run_and_within_it_are_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = fuzz_targets.make_run(tmp_path / "run")
    (run.path / "last.safetensors").write_bytes(run.model.read_bytes())
    run.model.unlink()
    run.model.symlink_to("last.safetensors")
    (tmp_path / "link").symlink_to("run")
    assert minigpt.load(tmp_path / "link").path == tmp_path / "link"


@pytest.mark.parametrize("name", ["look", "look/attention.png"])
def test_pictures_are_not_written_through_a_link(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = fuzz_targets.make_run(tmp_path / "run")
    (tmp_path / "precious").mkdir() if name == "look" else (tmp_path / "precious").write_text("mine")
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).symlink_to(tmp_path / "precious")
    with pytest.raises(FileError, match="leads out of its folder"):
        list(look(minigpt.load(run.path), text="to be", only=["attention"]))
    assert (tmp_path / "precious").is_dir() == (name == "look")
    assert name == "look" or (tmp_path / "precious").read_text() == "mine"


def test_a_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = fuzz_targets.make_run(tmp_path / "run")
    (run.path / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(FileError, match="leads out of its folder"):
        resume(run.path, max_iters=99)
    assert not (tmp_path / "new").exists()


def test_a_temporary_file_is_not_written_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".file.1.tmp").symlink_to("precious")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("name", [INDEX, "tokenizer.json", "train-00000.bin"])
def test_prepared_data_with_a_link_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    data = fuzz_targets.make_prepared_data(tmp_path)
    (data / name).rename(tmp_path / name)
    (data / name).symlink_to(tmp_path / name)
    with pytest.raises(FileError, match="is a link"):
        PreparedData(data)


@pytest.mark.parametrize("name", ["../../x.bin", "/etc/passwd", "train-00000.bin/../x", "train-0.bin", ".", "\0"])
def test_an_index_that_names_files_outside_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    index = fuzz_targets.make_prepared_data(tmp_path) / INDEX
    content = json.loads(index.read_text())
    content["parts"][0]["train"]["name"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(FileError, match="has an impossible value"):
        PreparedData(index.parent)


def test_an_adapter_and_a_gpt2_with_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    for name in ("adapter", "gpt2"):
        (tmp_path / name).mkdir()
    (adapter,) = [target for target in fuzz_targets.TARGETS if target.name == "adapter: adapter_model.safetensors"]
    (gpt2,) = [target for target in fuzz_targets.TARGETS if target.name == "GPT-2: model.safetensors"]
    for reader, folder in ((adapter, tmp_path / "adapter"), (gpt2, tmp_path / "gpt2")):
        file = reader.make(folder)
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(FileError, match="leads out of its folder"):
            reader.read(folder)


def test_links_within_the_cache_of_hugging_face_are_followed(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "models--x" / "snapshots" / "0a1b", tmp_path / "models--x" / "blobs"
    folder.mkdir(parents=True), blobs.mkdir()
    (gpt2,) = [target for target in fuzz_targets.TARGETS if target.name == "GPT-2: model.safetensors"]
    file = gpt2.make(folder)
    file.rename(blobs / "c2d3")
    file.symlink_to("../../blobs/c2d3")
    assert load_gpt2(folder).config.n_layer == 1
    (tmp_path / "blobs").mkdir()  # which all models share, in newer ones
    (blobs / "c2d3").rename(tmp_path / "blobs" / "e4f5")
    (blobs / "c2d3").symlink_to("../../blobs/e4f5")
    assert load_gpt2(folder).config.n_layer == 1
    (tmp_path / "blobs" / "e4f5").rename(tmp_path / "elsewhere")
    (tmp_path / "blobs" / "e4f5").symlink_to("../elsewhere")
    with pytest.raises(FileError, match="leads out of its folder"):
        load_gpt2(folder)


@pytest.mark.parametrize("path", ["\0", "\ud800", "x" * 5000, "/dev/zero", "/"])
def test_an_impossible_path_of_the_text_is_refused(path: str, tmp_path: Path) -> None:
    run = fuzz_targets.make_run(tmp_path)
    run.info.write_text(json.dumps(json.loads(run.info.read_text()) | {"data_paths": [path]}))
    with pytest.raises(FileError):
        minigpt.load(tmp_path).corpus()


# Control characters for terminals and HTML for browsers are escaped.

EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\u2066\x7f\x00\r<script>alert(1)</script>&"
CONTROL_CHARACTERS = set("\x1b\x9b\u202e\u2066\x7f\x00\x07")


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Return an untrusted run whose tokens, names and texts hold terminal control sequences."""
    folder = tmp_path_factory.mktemp("runs") / "evil\x1b[31m"
    folder.mkdir()
    run = fuzz_targets.make_run(folder, CharTokenizer(sorted({*EVIL, *"ab"}), ["<|\x1b[31m|>"]))
    info = json.loads(run.info.read_text())
    run.info.write_text(json.dumps(info | {"data_source": EVIL, "platform": EVIL, "started": EVIL}))
    return run


def find_control_characters(shown: str) -> set[str]:
    """Return the control characters in a text, without those of our own colors and line ends."""
    return CONTROL_CHARACTERS & set(shown)


def test_a_terminal_gets_no_control_characters_of_a_run(evil: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(evil.path.parent)
    for arguments in (["sample", "--prompt", "ab", "--max-new-tokens", "60", "--seed", "1"], ["info"]):
        status, screen = in_terminal(*arguments, cwd=tmp_path)
        assert status == 0, screen
        assert "the newest run: runs/evil␛[31m" in screen
        assert not find_control_characters(screen), screen
    tokenizer = evil.path / "tokenizer.json"
    for arguments in (["show", tokenizer], ["decode", tokenizer, *range(10)]):
        status, screen = in_terminal("tokenizer", *arguments, cwd=tmp_path)
        assert status == 0, screen
        assert not find_control_characters(screen), screen


def test_a_pipe_gets_the_text_unchanged(evil: RunDirectory, program: Callable) -> None:
    tokenizer = CharTokenizer.load(evil.tokenizer)
    done = program("tokenizer", "decode", evil.tokenizer, *tokenizer.encode(EVIL), encoding=None)
    assert done.stdout == EVIL.encode() + b"\n"


def test_error_messages_escape_control_characters(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('n_embd = "\\u001b[31m\\u202e"\n', encoding="utf-8")
    for arguments in (
        ["train", "--config", "a.toml"],
        ["sample", EVIL.replace("\0", "")],
        ["train", "--preset", "\x1b"],
    ):
        done = command(*arguments)
        assert done.returncode == 2
        assert not find_control_characters(done.stderr), done.stderr


def test_progress_messages_escape_control_characters(capsys: pytest.CaptureFixture) -> None:
    PipeSafeConsole(stderr=True, soft_wrap=True).say(EVIL)
    assert not find_control_characters(capsys.readouterr().err)


@pytest.mark.parametrize(
    "page",
    [
        lambda: make_token_loss_page(EVIL, [EVIL, EVIL, "b"], [1.0, 2.0]),
        lambda: make_memorization_page(EVIL, *((text, find_verbatim(text, "a text")) for text in (EVIL, EVIL * 2))),
    ],
)
def test_pages_escape_html(page: Callable[[], str]) -> None:
    html = page()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not find_control_characters(html)


def test_the_report_of_an_untrusted_ladder_escapes_control_characters_and_html(tmp_path: Path) -> None:
    content = json.loads(fuzz_targets.make_ladder(tmp_path).read_text())
    content["rungs"][0] |= {"name": EVIL, "sample": EVIL}
    (tmp_path / "ladder.json").write_text(json.dumps(content))
    ladder = LadderDirectory(tmp_path).read()
    from minigpt.studies.ladder.report import draw_ladder, format_markdown

    LadderDirectory(tmp_path).write_report(format_markdown(ladder), draw_ladder(ladder))
    assert not find_control_characters((tmp_path / "ladder.md").read_text())
    quoted = re.compile("```.*?```|`[^`]*`", re.DOTALL)  # where Markdown shows the text as it is
    assert "<script" not in quoted.sub("", (tmp_path / "ladder.md").read_text())
