"""`minigpt tokenizer`, and runs with other tokens than characters."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_process import in_terminal
from conftest import TINY, TINY_FLAGS

import minigpt
from minigpt.config import Config
from minigpt.errors import ConfigError, RunError
from minigpt.runs.run import Run
from minigpt.studies.look.views import VIEWS
from minigpt.studies.tokenizer_comparison import compare_tokenizers, count_multiplications
from minigpt.tokenizers.base import compute_fingerprint
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer
from minigpt.tokenizers.tiktoken_adapter import recover_merges

SETTINGS = {**TINY, "device": "cpu", "vocab_size": 300}


@pytest.fixture(scope="module", params=["bpe", "sentencepiece"])
def run(request: pytest.FixtureRequest, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / request.param
    return minigpt.train(data=text_file, out=out, tokenizer=request.param, **SETTINGS)


@pytest.fixture
def tokenizer_file(text: str, tmp_path: Path) -> Path:
    BPETokenizer.train(text, 300, ["<|endoftext|>"]).save(tmp_path / "t.json")
    return tmp_path / "t.json"


def test_a_run_has_its_tokenizer_and_generates_with_it(run: Run, text: str) -> None:
    kind = run.config.training.tokenizer
    assert (run.path / ("tokenizer.model" if kind == "sentencepiece" else "tokenizer.json")).is_file()
    again = minigpt.load(run.path, device="cpu")
    assert again.tokenizer.encode(text) == run.tokenizer.encode(text)
    assert again.info.tokenizer_sha256 == compute_fingerprint(run.tokenizer)
    assert again.config.model.vocab_size == again.tokenizer.vocab_size == 300
    written = run.generate("sea wind", max_new_tokens=50, seed=1)
    assert written == "sea wind" + "".join(again.stream("sea wind", max_new_tokens=50, seed=1))
    assert written == again.generate_several(1, "sea wind", max_new_tokens=50, seed=1)[0]
    assert again.metrics[-1].characters > TINY["max_iters"] * again.config.tokens_per_step  # a token is several


def test_bits_per_byte_are_all_bits_divided_by_all_bytes(run: Run, text: str) -> None:
    ids = torch.tensor(run.tokenizer.encode(text))
    val = ids[math.floor(0.9 * len(ids)) :]
    size = len(run.tokenizer.decode_bytes(val[1:].tolist()))
    loss = run.loss(run.tokenizer.decode(val.tolist()))
    assert run.info.validation_loss == pytest.approx(loss, rel=1e-5)
    assert run.info.bits_per_byte == pytest.approx(loss * (len(val) - 1) / math.log(2) / size, rel=1e-5)
    assert run.info.bits_per_character == pytest.approx(run.info.bits_per_byte)  # the text is ASCII
    measured = run.evaluate()
    assert (measured.loss, measured.bits_per_byte) == pytest.approx((loss, run.info.bits_per_byte), rel=1e-5)


def test_bits_per_character_and_per_byte_differ_where_characters_have_more_bytes(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("äöü € " * 400)
    run = minigpt.train(data=tmp_path / "t.txt", out=tmp_path / "run", device="cpu", **TINY)
    info = run.info
    assert info.bits_per_character == pytest.approx(info.validation_loss / math.log(2))
    assert info.bits_per_byte == pytest.approx(info.bits_per_character * 6 / 11, rel=0.02)
    assert trained.info.bits_per_byte == pytest.approx(trained.info.bits_per_character)


def test_a_character_in_several_tokens_is_streamed_whole(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("漢字かな交じり文。" * 300)
    run = minigpt.train(
        data=tmp_path / "t.txt", out=tmp_path / "run", tokenizer="bpe", **{**SETTINGS, "vocab_size": 257}
    )
    pieces = list(run.stream("漢", max_new_tokens=200, seed=0))
    assert "".join(pieces) == run.generate("漢", max_new_tokens=200, seed=0)[1:]
    assert sum("�" not in piece for piece in pieces) > 20


def test_a_run_with_another_tokenizer_than_its_own_is_refused(run: Run, text: str, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    if run.config.training.tokenizer == "bpe":
        BPETokenizer.train(text[::-1], 300).save(copy / "tokenizer.json")
    else:
        SentencePieceTokenizer.train(text[::-1], 300).save(copy / "tokenizer.model")
    with pytest.raises(RunError, match=r"tokenizer\.(json|model).*the model was trained with other tokens"):
        minigpt.load(copy)


def test_a_run_with_other_characters_in_its_tokenizer_is_refused(trained: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(trained.path, tmp_path / "copy")
    characters = list(trained.tokenizer.stoi)
    CharTokenizer([*characters[:-1], "☃"]).save(copy / "tokenizer.json")
    with pytest.raises(RunError, match="the model was trained with other tokens"):
        minigpt.load(copy)


def test_a_run_with_a_missing_setting_is_refused(trained: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(trained.path, tmp_path / "copy")
    config = (copy / "config.toml").read_text().replace('tokenizer = "char"\n', "")
    (copy / "config.toml").write_text(config)
    with pytest.raises(RunError, match=r"config\.toml' is damaged or from another version: the setting 'tokenizer' is"):
        minigpt.load(copy)


def test_look_measures_the_loss_of_each_token(run: Run, command: Callable, tmp_path: Path) -> None:
    # One run is enough for the other views. It has no timeline, and "copied" writes 2,000 tokens.
    views = VIEWS.keys() - {"copied", "timeline"} if run.config.training.tokenizer == "bpe" else {"surprise"}
    only = [word for name in views for word in ("--only", name)]
    done = command("look", run.path, "--out", tmp_path / "look", "--json", *only)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["views"]["surprise"]
    assert "".join(seen["tokens"]) == seen["text"]
    assert len(seen["losses"]) == len(seen["tokens"]) - 1


def test_train_takes_an_existing_tokenizer(text_file: Path, tokenizer_file: Path, command: Callable) -> None:
    for source in (tokenizer_file, "first"):
        out = "second" if source == "first" else "first"
        done = command("train", "--data", text_file, "--tokenizer", source, "--out", out, *TINY_FLAGS, "--max-iters", 5)
        assert done.returncode == 0, done.stderr
        assert "tokens of 300 different (bpe)" in done.stderr
        assert "nats per token (exact;" in done.stdout
        assert "bits per byte" in done.stdout
    assert command("sample", "second", "--max-new-tokens", "5").returncode == 0
    assert "nats per token" in command("eval", "second").stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vocab-size", "99"], "vocab_size is only for --tokenizer bpe or sentencepiece"),
        (["--tokenizer", "bpe", "--vocab-size", "99"], "256 tokens at least, and 99 is fewer"),
        (["--tokenizer", "bpe", "--vocab-size", "0"], "vocab_size must be a whole number at least 1, not 0"),
        (["--tokenizer", "bpe", "--vocab-size", "90000"], "tokens at most, not 90,000"),
        (["--tokenizer", "sentencepiece", "--vocab-size", "90000"], "cannot learn 90,000 pieces"),
        (["--tokenizer", "nosuch.json"], "cannot read 'nosuch.json'"),
        (["--tokenizer", "verse.model"], "not a SentencePiece model"),
        (["--tokenizer", "verse.json"], "not a tokenizer: it is not JSON"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_sentence(
    flags: list[str], message: str, text_file: Path, tmp_path: Path, command: Callable
) -> None:
    for name in ("verse.model", "verse.json"):
        shutil.copy(text_file, tmp_path / name)
    done = command("train", "--data", text_file, *flags, *TINY_FLAGS)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_vocab_size_without_a_trained_tokenizer_is_refused_in_python(text_file: Path) -> None:
    with pytest.raises(ConfigError, match="bpe and sentencepiece"):
        minigpt.train(data=text_file, vocab_size=300)


def test_train_show_encode_and_decode_agree(text_file: Path, command: Callable) -> None:
    for kind, name in (("bpe", "tokenizer.json"), ("char", "c.json"), ("sentencepiece", "tokenizer.model")):
        flags = ["--kind", kind, *(["--out", name] if kind == "char" else ["--vocab-size", 300])]
        learned = json.loads(command("tokenizer", "train", "--data", text_file, *flags, "--json").stdout)
        assert learned["kind"] == kind
        shown = command("tokenizer", "show", name, "--limit", 3, "--text", "sea  wind\n").stdout
        assert shown.startswith(kind)
        ids = command("tokenizer", "encode", name, "-", input="sea  wind\n").stdout
        assert len(ids.split()) == learned_length(shown)
        assert command("tokenizer", "decode", name, *ids.split()).stdout == "sea  wind\n\n"
        assert command("tokenizer", "decode", name, "-", input=ids).stdout == "sea  wind\n\n"
        counted = json.loads(command("tokenizer", "encode", name, "sea", "--json").stdout)
        assert counted["characters"] == 3


def learned_length(shown: str) -> int:
    """How many tokens `show` says that the text has."""
    return int(shown.strip().splitlines()[-1].split()[0])


def test_show_lists_merges_in_the_order_of_training(tokenizer_file: Path, command: Callable) -> None:
    merges = BPETokenizer.load(tokenizer_file).merges
    lines = command("tokenizer", "show", tokenizer_file, "--limit", 4).stdout.splitlines()
    assert lines[1] == "    299  <|endoftext|>  special"
    expected = [f"{a.decode()!r} + {b.decode()!r} → {(a + b).decode()!r}" for a, b in merges[:4]]
    assert [line.split("  ", 1)[1].strip() for line in (x.strip() for x in lines[2:])] == expected


def test_a_terminal_gets_tokens_in_colors(tokenizer_file: Path, tmp_path: Path) -> None:
    status, shown = in_terminal("tokenizer", "show", tokenizer_file, "--text", "sea wind", cwd=tmp_path)
    assert status == 0
    assert "\x1b[48" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decode", "t.json", "1", "x"], "'x' is not a token id"),
        (["decode", "t.json", "²"], "'²' is not a token id"),
        (["decode", "t.json", "9" * 5000], "is not a token id"),
        (["decode", "t.json", "300"], "ids run from 0 to 299"),
        (["train", "--data", "t.txt", "--vocab-size", "300", "--out", "."], "it is a folder"),
        (["train", "--data", "t.txt", "--kind", "char", "--vocab-size", "9", "--out", "x"], "has no --vocab-size"),
        (["train", "--data", "t.txt", "--kind", "char", "--special", "x", "--out", "x"], "has no --special"),
        (["train", "--data", "t.txt", "--special", "a", "--vocab-size", "300"], "'a' is an ordinary token too"),
        (["train", "--data", "t.txt", "--kind", "sentencepiece", "--vocab-size", "9" * 30], "cannot learn 999"),
        (["encode", "", "x"], "has no name"),
        (["encode", "absent.json", "x"], "cannot read 'absent.json'"),
        (["train", "--kind", "bpe", "--out", "x.model"], "has the wrong ending"),
        (["train", "--vocab-size", "20", "--data", "t.txt"], "256 tokens at least"),
        (["train", "--data", "t.json"], "is JSON, not a text"),
        (["show", "nothing"], "cannot read"),
    ],
)
def test_tokenizer_commands_refuse_wrong_input_in_one_sentence(
    arguments: list[str], message: str, tokenizer_file: Path, command: Callable, text: str
) -> None:
    tokenizer_file.with_suffix(".txt").write_text(text)
    done = command("tokenizer", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_comparison_gives_each_tokenizer_the_same_multiplications(text_file: Path, tmp_path: Path) -> None:
    small = Config().override(**TINY | {"n_embd": 64})
    found = compare_tokenizers(text_file, tmp_path / "out", 300, 40, "sea ☃", 1, small)
    assert [model.tokenizer for model in found] == ["characters", "BPE", "SentencePiece"]
    assert (tmp_path / "out" / "tokenizers.png").stat().st_size > 1000
    budgets = []
    for model, kind in zip(found, ("char", "bpe", "sentencepiece"), strict=True):
        run = minigpt.load(tmp_path / "out" / kind)
        assert run.info.bits_per_byte == model.bits_per_byte
        assert model.text.startswith("sea ")
        budgets.append(model.steps * count_multiplications(run.config))
        assert model.tokens_per_character == pytest.approx(
            len(run.tokenizer.encode(text_file.read_text())) / len(text_file.read_text()), rel=1e-3
        )
    assert max(budgets) < 1.03 * min(budgets)
    assert dataclasses.asdict(found[0])["vocab_size"] < 300


def test_merges_can_be_rebuilt_from_the_tokens(text: str) -> None:
    tokenizer = BPETokenizer.train(text, 330)
    assert recover_merges({token: i for i, token in tokenizer.vocab.items()}) == tokenizer.merges


def test_gpt2s_tokenizer_needs_the_network_or_a_folder(text_file: Path, command: Callable, tmp_path: Path) -> None:
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "TIKTOKEN_CACHE_DIR": str(tmp_path / "cache")}
    done = command("train", "--data", text_file, "--tokenizer", "gpt2", *TINY_FLAGS, env=offline)
    assert done.returncode == 2
    assert "name a folder with its vocab.json and merges.txt" in done.stderr
