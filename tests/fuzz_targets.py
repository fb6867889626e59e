"""Every function that reads a file, with a small valid file for it, and a process that reads many mutated copies.

    python benchmarks/fuzz.py --files 20000 --seed 0

A read must return a result or raise one of the project's own errors. Anything else is a finding: another exception,
more than five seconds, more than a gigabyte, or the end of the process.
"""

import contextlib
import copy
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import random
import resource
import signal
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # the others reserve a gigabyte that they never use

import mutations
import pyarrow
import pyarrow.parquet
import safetensors.torch
import torch
import zstandard
from fault_injection import PROCESSES
from mutations import Mutate
from safetensors import safe_open

from minigpt.cli.config_file import read_config
from minigpt.cli.info import list_facts
from minigpt.cli.output import describe_run
from minigpt.config import Config
from minigpt.data.documents import DocumentReader
from minigpt.data.prepare import PrepareSettings, prepare_corpus
from minigpt.data.prepared_data import PreparedData
from minigpt.data.shards import INDEX
from minigpt.data.text_format import TextFormat
from minigpt.distributed.sharded_checkpoint import load_full_tensors
from minigpt.errors import MinigptError
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.gguf_export import write_gguf
from minigpt.exchange.gguf_import import load_gguf
from minigpt.exchange.gguf_names import MODEL as GGUF_MODEL
from minigpt.exchange.huggingface_export import save_gpt2
from minigpt.exchange.huggingface_import import load_gpt2, read_tokenizer
from minigpt.exchange.huggingface_tokenizer import format_tokenizer
from minigpt.exchange.huggingface_weights import INDEX as INDEX_OF_PARTS
from minigpt.exchange.lecture_import import load_lecture, read_characters
from minigpt.exchange.nanogpt_export import convert_to_nanogpt
from minigpt.exchange.nanogpt_import import load_nanogpt, read_vocabulary
from minigpt.exchange.pickles import serialize_checkpoint, serialize_vocabulary
from minigpt.finetuning.adapter_files import apply_adapters, save_adapter
from minigpt.finetuning.dpo_dataset import read_pairs
from minigpt.finetuning.examples import read_examples
from minigpt.finetuning.lora import apply_lora
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.replaced_weights import Replacement, replace_weights
from minigpt.finetuning.vocabulary_resize import extend_tokenizer, load_new_tokens, resize_embeddings, save_new_tokens
from minigpt.model import build, count_parameters
from minigpt.model.quantization import quantize_model
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import FinetuningInfo, Metrics, RunInfo, Snapshot
from minigpt.runs.run_overview import RunOverview
from minigpt.studies.ladder.directory import Ladder, LadderDirectory, Measurement, VerbatimShares
from minigpt.studies.ladder.ngram_comparison import Blend, Comparison
from minigpt.studies.ladder.report import format_markdown, format_terminal_lines, summarize_ladder
from minigpt.tokenizers.base import Tokenizer, compute_fingerprint
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.byte_level import token_to_text
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.tokenizers.loading import load_tokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import MARKER, MODEL, SHARDS, TRAINING, CheckpointMetadata
from minigpt.training.optimizer import Optimizer
from minigpt.training.training_state import TrainingState
from minigpt.training.wrapping import wrap_model

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer …\n" * 4
SHAPE = {"n_embd": 4, "n_head": 2, "n_layer": 1, "block_size": 4, "batch_size": 2, "max_iters": 4, "eval_interval": 2}
SECONDS, MEMORY = 5, 2**30  # the limits for one file: CPU seconds, bytes
STUCK = 120  # seconds on one file after which the process is killed


@dataclass(frozen=True)
class FuzzTarget:
    """A file of one kind, and how it is made, mutated and read.

    Attributes:
        name: the kind of file.
        make: writes a valid file into a folder and returns the path of the file to mutate.
        change: mutates the content of the file.
        read: reads the file, and uses the result as a user would.
        update_checksums: updates the length and SHA-256 of the file where another file of the folder holds them.
    """

    name: str
    make: Callable[[Path], Path]
    change: Mutate
    read: Callable[[Path], object]
    update_checksums: Callable[[Path], object] = lambda file: None


@functools.cache
def char_tokenizer() -> CharTokenizer:
    return CharTokenizer.from_text(TEXT)


@functools.cache
def bpe_tokenizer() -> BPETokenizer:
    return BPETokenizer.train(TEXT, 270, ["<|endoftext|>"])


def make_run(
    folder: Path, tokenizer: Tokenizer | None = None, quantization: str = "none", **shape: Any
) -> RunDirectory:
    """Write a complete run whose model was never trained."""
    tokenizer = tokenizer or char_tokenizer()
    config = Config().override(**SHAPE | shape, tokenizer=tokenizer.kind, vocab_size=tokenizer.vocab_size)
    torch.manual_seed(0)
    model = build(config.model)
    if quantization != "none":
        model = quantize_model(model, quantization)
        config = config.override(quantization=quantization)
    run = RunDirectory(folder)
    run.write_config(config)
    run.write_tokenizer(tokenizer, config)
    run.write_weights(model.state_dict())
    run.write_metrics([Metrics(n, 4.0 - n / 9, 4.1 - n / 9, 1e-3, 0.5 * n, 100 * n) for n in range(0, 5, 2)])
    run.write_snapshots([Snapshot(n, 4.1, TEXT[:20]) for n in range(3)])
    info = RunInfo(
        status="finished",
        started="2025-01-01T00:00:00+00:00",
        data_source="the file text",
        data_characters=len(TEXT),
        data_sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
        data_paths=[str(folder / "text.txt")],
        data_bytes=len(TEXT.encode()),
        parameters=count_parameters(model),
        device="cpu",
        threads=1,
        minigpt_version="0",
        torch_version="0",
        python_version="3",
        platform="Linux",
        step=4,
        validation_loss=3.5,
        tokenizer_sha256=compute_fingerprint(tokenizer),
        bits_per_byte=5.0,
        bits_per_character=5.0,
    )
    run.write_info(info)
    (folder / "text.txt").write_text(TEXT)
    return run


def run_target(name: str, change: Mutate, **options: Any) -> FuzzTarget:
    """Return the target for one file of a run; `options` as for `make_run`."""
    made = f"{name}{''.join(f', {option}' for option in options.values() if isinstance(option, str))}"
    return FuzzTarget(f"run: {made}", lambda folder: make_run(folder, **options).path / name, change, open_run)


def open_run(folder: Path) -> None:
    run = Run.open(folder, device="cpu")
    describe_run(run), list_facts(run)
    run.generate("", max_new_tokens=2, seed=0)


def read_overview(folder: Path) -> None:
    overview = RunOverview.read(folder)
    describe_run(overview), list_facts(overview)


def open_run_info(folder: Path) -> None:
    run = Run.open(folder, device="cpu")
    describe_run(run), list_facts(run)
    run.evaluate()


def make_bigram_config(folder: Path) -> Path:
    return make_run(folder, architecture="bigram").config


def tokenizer_target(
    name: str, write: Callable[[Path], object], change: Mutate, where: str | None = None
) -> FuzzTarget:
    """Return the target for a tokenizer's file."""

    def make(folder: Path) -> Path:
        write(folder)
        return folder / name

    return FuzzTarget(f"tokenizer: {where or name}", make, change, lambda folder: use_tokenizer(load_tokenizer(folder)))


def use_tokenizer(tokenizer: Tokenizer) -> None:
    try:
        assert tokenizer.decode_bytes(tokenizer.encode("to be or not"))
    finally:
        tokenizer.decode(range(tokenizer.vocab_size))
        [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
        tokenizer.to_bytes()


def write_gpt2_files(folder: Path) -> None:
    tokenizer = bpe_tokenizer()
    special = {i: name for name, i in tokenizer.special_tokens.items()}
    vocab = {special.get(i) or token_to_text(token): i for i, token in tokenizer.vocab.items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = "".join(f"{token_to_text(first)} {token_to_text(second)}\n" for first, second in tokenizer.merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")


def write_added_tokens(folder: Path) -> None:
    write_gpt2_files(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<b>": 270, "<|user|>": 271}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|user|>"}, "a": ["b"]}))


@functools.cache
def sentencepiece() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(TEXT, 290, end_of_text=True)


@functools.lru_cache(maxsize=1)
def open_run_once(folder: Path) -> Run:
    """The run in that folder, opened once, as it takes more time than what is read of it here."""
    return Run.open(folder, device="cpu")


@functools.lru_cache(maxsize=1)
def make_training_state(folder: Path) -> TrainingState:
    """The state of a training of that run, before its first step."""
    run = open_run_once(folder)
    with wrap_model(run.model.train(), run.config) as wrapped:
        training = run.config.training
        return TrainingState(run.model, run.dataset(), Optimizer(wrapped.parameters, training), training)


METADATA = CheckpointMetadata(2, True, 4, 0.1, 0.1, "", True)


def make_finetuning(folder: Path) -> Path:
    run = make_run(folder)
    run.write_finetuning_info(FinetuningInfo("sft", "lora", "0" * 64, "questions.jsonl", targets="qkv", rank=4))
    return run.finetuning


def read_finetuning_info(folder: Path) -> None:
    """Read how a run is fine-tuned, as resume does."""
    found = RunDirectory(folder).read_finetuning_info()
    LoRAConfig(found.rank, found.alpha, found.dropout, found.rslora, found.dora)


def make_checkpoint(folder: Path) -> Path:
    run, state, checkpoints = make_run(folder), make_training_state(folder), CheckpointDirectory(folder)
    metrics, snapshots = open_run_once(folder).metrics, run.read_snapshots()
    checkpoints.write(METADATA, state.weights(), state.tensors(), metrics, snapshots, is_best=False)
    return checkpoints.get_path(2)


def make_sharded_checkpoint(folder: Path) -> Path:
    """A shard, written as several processes do, but by one."""
    import torch.distributed.checkpoint as dcp

    run, state, checkpoints = make_run(folder), make_training_state(folder), CheckpointDirectory(folder)
    shards = checkpoints.create(2) / SHARDS
    tensors = {**state.weights(), **state.tensors()}
    with warnings.catch_warnings(action="ignore"):  # about the single process
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(shards, save_distributed=True), no_dist=True)
    metrics, snapshots = open_run_once(folder).metrics, run.read_snapshots()
    checkpoints.commit(METADATA, metrics, snapshots, is_best=False, merged=state.weights())
    return next(shards.iterdir())


def resume_training(folder: Path) -> None:
    """Read everything that a training reads when it resumes."""
    CheckpointDirectory(folder).require_no_links()
    checkpoint = CheckpointDirectory(folder).open_newest()
    load_full_tensors(checkpoint.model, open_run_once(folder).model.state_dict())
    make_training_state(folder).restore(checkpoint)
    make_training_state(folder).data.get_batch("train")


def update_marker(file: Path) -> None:
    """Write the size and SHA-256 that the file has now into its checkpoint's marker."""
    path = file.parent.parent if file.parent.name == SHARDS else file.parent
    marker = path / MARKER
    content, found = json.loads(marker.read_text()), file.read_bytes()
    content["files"][str(file.relative_to(path))] = {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    marker.write_text(json.dumps(content))


def document_target(name: str, content: bytes, change: Mutate) -> FuzzTarget:
    """Return the target for a file of documents, as `minigpt data prepare` reads it."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def read(folder: Path) -> None:
        for errors in ("strict", "replace"):
            with contextlib.suppress(MinigptError) if errors == "strict" else contextlib.nullcontext():
                for text, _ in DocumentReader(text_format=TextFormat(errors=errors)).read(folder / name):
                    text.encode()

    return FuzzTarget(f"documents: {name}", make, change, read)


def parquet() -> bytes:
    written = io.BytesIO()
    table = pyarrow.table({"text": TEXT.split("\n"), "n": list(range(TEXT.count("\n") + 1))})
    pyarrow.parquet.write_table(table, written, compression="zstd")
    return written.getvalue()


JSON_LINES = "".join(json.dumps({"text": line, "n": n}) + "\n" for n, line in enumerate(TEXT.split("\n"))).encode()


class SilentProgress:
    """Progress that shows nothing."""

    def say(self, text: str) -> None: ...
    def begin(self, title: str, total: int) -> None: ...
    def update(self, position: int) -> None: ...


def make_prepared_data(folder: Path) -> Path:
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text(TEXT)
    settings = PrepareSettings(separator="\n", train_fraction=0.5)
    prepare_corpus([folder / "texts"], folder / "data", settings, SilentProgress(), processes=1)
    return folder / "data"


def open_prepared_data(folder: Path) -> None:
    data = PreparedData(folder / "data")
    assert [len(ids[:9]) <= 9 for ids in (data.train, data.val)]


def update_index(file: Path) -> None:
    """Write the shard's length and SHA-256 into the index."""
    index = file.with_name(INDEX)
    content, found = json.loads(index.read_text()), file.read_bytes()
    content["parts"][0]["train"] |= {"tokens": len(found) // 2, "sha256": hashlib.sha256(found).hexdigest()}
    index.write_text(json.dumps(content))


def json_lines_target(name: str, lines: Sequence[Any], read: Callable[[Path], object]) -> FuzzTarget:
    """Return the target for a file of JSON lines."""

    def make(folder: Path) -> Path:
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder / name

    return FuzzTarget(name, make, mutations.mutate_json_lines, lambda folder: read(folder / name))


def make_messages(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


EXAMPLES = [
    {"instruction": "say a", "output": "a"},
    {"instruction": "say", "input": "b", "output": "b"},
    {"prompt": "e?", "completion": "e", "system": "be kind"},
    {"instruction": "f?", "output": "f", "history": [["g?", "g"]]},
    {"conversations": [{"from": "human", "value": "h?"}, {"from": "gpt", "value": "h", "weight": 1}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "i?"}]}, *make_messages("", "i")[1:]]},
    {"messages": [{"role": "system", "content": "be kind"}, *make_messages("c?", "c"), *make_messages("d?", "d")]},
]
PREFERENCES = [
    {"prompt": "which?", "chosen": "a", "rejected": "b"},
    {
        "prompt": make_messages("a", "b")[:1],
        "chosen": make_messages("", "c")[1:],
        "rejected": make_messages("", "d")[1:],
    },
]


def use_examples(path: Path) -> None:
    for example in read_examples(path):
        example.as_json.encode(), [question.encode() for question in example.questions]
        tokenizer, _ = extend_tokenizer(char_tokenizer(), CHAT_TOKENS, [turn.text for turn in example.turns])
        tokenizer.decode_bytes(tokenizer.encode(example.answer))


def make_adapter(folder: Path, name: str) -> Path:
    run = open_run_once(make_run(folder).path)
    tokenizer, old = extend_tokenizer(run.tokenizer, CHAT_TOKENS)
    bigger = dataclasses.replace(run, model=resize_embeddings(run.model, old, 0), tokenizer=tokenizer)
    model = copy.deepcopy(run.model)
    apply_lora(model, rank=2, dora=True)
    norm = {f"ln_f.{name}": Replacement(tensor) for name, tensor in model.ln_f.named_parameters()}
    replace_weights(model, norm, "default")
    save_adapter(model, folder / "adapter")
    save_new_tokens(folder / "adapter", bigger.model.state_dict(), old, bigger)
    return folder / "adapter" / name


def open_adapter(folder: Path) -> None:
    run = dataclasses.replace(open_run_once(folder), model=copy.deepcopy(open_run_once(folder).model))
    apply_adapters(run, [str(folder / "adapter")]).model(torch.zeros(1, 2, dtype=torch.int64))


def open_tokens(folder: Path) -> None:
    run = load_new_tokens(open_run_once(folder), folder / "adapter")
    use_tokenizer(run.tokenizer)


def adapter_target(name: str, change: Mutate, read: Callable[[Path], object]) -> FuzzTarget:
    return FuzzTarget(f"adapter: {name}", lambda folder: make_adapter(folder, name), change, read)


def gpt2_target(name: str, change: Mutate) -> FuzzTarget:
    def make(folder: Path) -> Path:
        shape = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
        config = Config().override(**SHAPE | shape, vocab_size=bpe_tokenizer().vocab_size)
        save_gpt2(build(config.model), folder)
        return folder / name

    return FuzzTarget(f"GPT-2: {name}", make, change, load_gpt2)


def make_gpt2_index(folder: Path) -> Path:
    """A GPT-2 in one part, which an index names."""
    file = gpt2_target("model.safetensors", mutations.mutate_safetensors).make(folder)
    with safe_open(file, framework="pt") as tensors:
        places = dict.fromkeys(tensors.keys(), "part.safetensors")
    file.rename(folder / "part.safetensors")
    (folder / INDEX_OF_PARTS).write_text(json.dumps({"weight_map": places}))
    return folder / INDEX_OF_PARTS


def make_exported_characters(folder: Path) -> Path:
    (folder / "tokenizer.json").write_bytes(format_tokenizer(char_tokenizer()))
    return folder / "tokenizer.json"


def read_exported_characters(folder: Path) -> None:
    tokenizer = read_tokenizer(folder)
    use_tokenizer(tokenizer)
    if isinstance(tokenizer, CharTokenizer):  # what is read can be written
        tokenizer.save(folder / "again.json")
        use_tokenizer(CharTokenizer.load(folder / "again.json"))


def make_gguf(folder: Path, tokenizer: Tokenizer | None = None) -> Path:
    run = open_run_once(make_run(folder, tokenizer).path)
    write_gguf(run, folder / "gguf", ExportOptions())
    return folder / "gguf" / GGUF_MODEL


def open_gguf(folder: Path) -> None:
    model, tokenizer = load_gguf(folder / "gguf" / GGUF_MODEL)
    use_tokenizer(tokenizer)
    model(torch.zeros(1, 2, dtype=torch.int64))


def make_nanogpt(folder: Path) -> Path:
    model = build(Config().override(**SHAPE, activation="gelu_exact", tied_head=True).model)
    sizes = {name: getattr(model.config, name) for name in ("vocab_size", "block_size", "n_embd", "n_head", "n_layer")}
    content = {"model": convert_to_nanogpt(model), "model_args": sizes | {"bias": True, "dropout": 0.0}}
    (folder / "ckpt.pt").write_bytes(serialize_checkpoint(content))
    return folder / "ckpt.pt"


def make_meta(folder: Path) -> Path:
    stoi = char_tokenizer().stoi
    content = {"vocab_size": len(stoi), "itos": char_tokenizer().itos, "stoi": stoi}
    (folder / "meta.pkl").write_bytes(serialize_vocabulary(content))
    return folder / "meta.pkl"


def make_lecture(folder: Path, name: str, **shape: Any) -> Path:
    weights = build(Config().override(**SHAPE | shape).model).state_dict()
    save = serialize_checkpoint if name.endswith(".pt") else safetensors.torch.save
    (folder / name).write_bytes(save(weights))
    return folder / name


def make_characters(folder: Path) -> Path:
    (folder / "vocabulary.json").write_text(json.dumps(list(char_tokenizer().stoi)))
    return folder / "vocabulary.json"


def replace_values(checkpoint: bytes, values: bytes | None = None) -> tuple[bytes, bytes]:
    """Return a .pt file with another pickle in it, if one is given, and the pickle that it had."""
    written, found = io.BytesIO(), b""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as before, zipfile.ZipFile(written, "w") as after:
        for name in before.namelist():
            part = before.read(name)
            if name.endswith("data.pkl"):
                found, part = part, part if values is None else values
            after.writestr(name, part)
    return written.getvalue(), found


def mutate_checkpoint(content: bytes, rng: random.Random) -> bytes:
    """Mutate a .pt file, or most often the pickle in it, so that the archive around it stays valid."""
    try:
        _, values = replace_values(content)
    except Exception:  # an earlier mutation has broken the archive
        return mutations.mutate_bytes(content, rng)
    return replace_values(content, mutations.mutate_bytes(values, rng))[0]


def make_ladder(folder: Path) -> Path:
    results = [Measurement(n, f"rung {n}", "an idea", n > 0, 1, 3.0 - n, 9, 0.5, 100, TEXT[:30]) for n in range(3)]
    counted = [Measurement(n, f"order {n}", "counting", False, 1, 2.0, 9, 0.5, 100, TEXT[:30]) for n in (3, 4)]
    blends = [Blend(1, 3, 0.5, 100, 2.0, 2.1, 1.9)]
    comparisons = [Comparison(1, "position", "4", 0.2, 2.0, 2.1, 1.9), Comparison(1, "kind", "space", 0.2, 2, 2, 1)]
    settings = vars(Config().model) | vars(Config().training) | {"data_sha256": ""}
    ladder = Ladder(settings, results, counted, blends, comparisons, [VerbatimShares(1, 10, 0.5, 0.5, 0.5)], 4.0)
    LadderDirectory(folder).save(ladder)
    return folder / "ladder.json"


def open_ladder(folder: Path) -> None:
    ladder = LadderDirectory(folder).read()
    known = vars(Config().model) | vars(Config().training) | {"data_sha256": ""}
    if any(ladder.settings.get(name) != value for name, value in known.items()):
        return  # `LadderDirectory.open` refuses it
    (
        format_terminal_lines(ladder, 1, True),
        summarize_ladder(ladder),
        format_markdown(ladder).encode("utf-8", "backslashreplace"),
    )


def read_toml(folder: Path) -> None:
    config = read_config(str(folder / "config.toml"), None)
    assert Config.from_toml(config.to_toml()) == config


def make_toml(folder: Path) -> Path:
    text = '# mine\npreset = "bigram"\nmax_iters = 1_000\n[model]\nblock_size = 8\n[training]\nlearning_rate = 1e-2\n'
    (folder / "config.toml").write_text(text + "seed = 0x10\ncompile = false\n")
    return folder / "config.toml"


IN_JSON, IN_TENSORS, IN_TEXT = mutations.mutate_json, mutations.mutate_safetensors, mutations.mutate_text
TARGETS = [
    run_target("config.toml", IN_TEXT),
    FuzzTarget("run: config.toml, bigram", make_bigram_config, IN_TEXT, open_run),
    run_target("config.toml", IN_TEXT, implementation="lecture"),
    FuzzTarget("run: run.json", lambda folder: make_run(folder).info, IN_JSON, open_run_info),
    FuzzTarget("run: finetuning.json", make_finetuning, IN_JSON, read_finetuning_info),
    run_target("tokenizer.json", IN_JSON),
    run_target("model.safetensors", IN_TENSORS),
    FuzzTarget("info: model.safetensors", lambda folder: make_run(folder).model, IN_TENSORS, read_overview),
    run_target("metrics.jsonl", mutations.mutate_json_lines),
    run_target("config.toml", IN_TEXT, quantization="int8"),
    run_target("model.safetensors", IN_TENSORS, quantization="int8"),
    run_target("model.safetensors", IN_TENSORS, quantization="nf4"),
    FuzzTarget(
        "run: snapshots.jsonl",
        lambda folder: make_run(folder).snapshots,
        mutations.mutate_json_lines,
        lambda folder: RunDirectory(folder).read_snapshots(),
    ),
    FuzzTarget(
        "checkpoint: checkpoint.json", lambda folder: make_checkpoint(folder) / MARKER, IN_JSON, resume_training
    ),
    FuzzTarget(
        "checkpoint: model.safetensors",
        lambda folder: make_checkpoint(folder) / MODEL,
        IN_TENSORS,
        resume_training,
        update_marker,
    ),
    FuzzTarget(
        "checkpoint: training.safetensors",
        lambda folder: make_checkpoint(folder) / TRAINING,
        IN_TENSORS,
        resume_training,
        update_marker,
    ),
    FuzzTarget("checkpoint: shards", make_sharded_checkpoint, IN_TENSORS, resume_training, update_marker),
    FuzzTarget("train --config: TOML", make_toml, IN_TEXT, read_toml),
    tokenizer_target(
        "tokenizer.json", lambda f: char_tokenizer().save(f / "tokenizer.json"), IN_JSON, "tokenizer.json, char"
    ),
    tokenizer_target(
        "tokenizer.json", lambda f: bpe_tokenizer().save(f / "tokenizer.json"), IN_JSON, "tokenizer.json, BPE"
    ),
    tokenizer_target("vocab.json", write_gpt2_files, IN_JSON),
    tokenizer_target("merges.txt", write_gpt2_files, IN_TEXT),
    tokenizer_target("added_tokens.json", write_added_tokens, IN_JSON),
    tokenizer_target("special_tokens_map.json", write_added_tokens, IN_JSON),
    tokenizer_target("tokenizer.model", lambda f: sentencepiece().save(f / "tokenizer.model"), mutations.mutate_bytes),
    document_target("a.txt", TEXT.encode(), IN_TEXT),
    document_target("a.jsonl", JSON_LINES, mutations.mutate_json_lines),
    document_target("a.txt.gz", gzip.compress(TEXT.encode()), mutations.mutate_gzip),
    document_target(
        "a.jsonl.zst",
        zstandard.compress(JSON_LINES),
        mutations.mutate_packed(zstandard.compress, zstandard.decompress, mutations.mutate_json_lines),
    ),
    document_target("a.parquet", parquet(), mutations.mutate_bytes),
    FuzzTarget(
        "prepared data: data.json", lambda folder: make_prepared_data(folder) / INDEX, IN_JSON, open_prepared_data
    ),
    FuzzTarget(
        "prepared data: shard",
        lambda folder: make_prepared_data(folder) / "train-00000.bin",
        mutations.mutate_bytes,
        open_prepared_data,
        update_index,
    ),
    json_lines_target("instructions.jsonl", EXAMPLES, use_examples),
    json_lines_target("preferences.jsonl", PREFERENCES, read_pairs),
    adapter_target("adapter_config.json", IN_JSON, open_adapter),
    adapter_target("adapter_model.safetensors", IN_TENSORS, open_adapter),
    adapter_target("tokens.safetensors", IN_TENSORS, open_tokens),
    adapter_target("tokenizer.json", IN_JSON, open_tokens),
    FuzzTarget("GPT-2: tokenizer.json, characters", make_exported_characters, IN_JSON, read_exported_characters),
    gpt2_target("config.json", IN_JSON),
    gpt2_target("model.safetensors", IN_TENSORS),
    FuzzTarget(f"GPT-2: {INDEX_OF_PARTS}", make_gpt2_index, IN_JSON, load_gpt2),
    FuzzTarget("GGUF, characters", make_gguf, mutations.mutate_bytes, open_gguf),
    FuzzTarget("GGUF, BPE", lambda folder: make_gguf(folder, bpe_tokenizer()), mutations.mutate_bytes, open_gguf),
    FuzzTarget("nanoGPT: ckpt.pt", make_nanogpt, mutate_checkpoint, lambda folder: load_nanogpt(folder / "ckpt.pt")),
    FuzzTarget(
        "nanoGPT: meta.pkl",
        make_meta,
        mutations.mutate_bytes,
        lambda folder: use_tokenizer(read_vocabulary(folder / "meta.pkl")),
    ),
    FuzzTarget(
        "lecture: model.pt",
        lambda folder: make_lecture(folder, "model.pt", implementation="lecture"),
        mutate_checkpoint,
        lambda folder: load_lecture(folder / "model.pt"),
    ),
    FuzzTarget(
        "lecture: model.safetensors",
        lambda folder: make_lecture(folder, "model.safetensors", implementation="lecture"),
        IN_TENSORS,
        lambda folder: load_lecture(folder / "model.safetensors"),
    ),
    FuzzTarget(
        "lecture: vocabulary.json",
        make_characters,
        IN_JSON,
        lambda folder: use_tokenizer(read_characters(folder / "vocabulary.json")),
    ),
    FuzzTarget("ladder.json", make_ladder, IN_JSON, open_ladder),
]


@dataclass
class Outcomes:
    """How many files of a target were read, how many were refused, and a sentence for every other outcome."""

    valid: int = 0
    refused: int = 0
    findings: list[str] = dataclasses.field(default_factory=list)


class TimeLimitExceeded(BaseException):
    """Reading one file took too long."""


def read_mutated_file(target: FuzzTarget, folder: Path, file: Path, content: bytes, seed: int, number: int) -> str:
    """Read mutated file number `number` and return "valid", "refused", or a description of what else happened."""
    rng = random.Random(f"{target.name} {seed} {number}")
    file.write_bytes(mutations.mutate(content, rng, target.change))
    target.update_checksums(file)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # CPU time of this process, so that a busy machine does not count
    try:
        target.read(folder)
    except MinigptError as error:
        str(error)
        return "refused"
    except TimeLimitExceeded:
        return f"more than {SECONDS} seconds"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = next((frame for frame in reversed(place) if "minigpt" in frame.filename), place[-1])
        return f"{type(error).__name__}: {str(error)[:200]!r} at {Path(ours.filename).name}:{ours.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "valid"


@contextlib.contextmanager
def limit_time_and_memory() -> Iterator[None]:
    """Within the block, SIGPROF raises TimeLimitExceeded, and the process can take MEMORY more bytes at most."""

    def raise_time_limit(number: int, frame: object) -> None:
        raise TimeLimitExceeded

    signal.signal(signal.SIGPROF, raise_time_limit)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def count_outcomes(target: FuzzTarget, folder: Path, numbers: Sequence[int], seed: int, at: Any) -> Outcomes:
    """Read the mutated files with these numbers. `at[1]` always holds the number of the current file."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", r".*which is left out")  # ours, about a part of a file
    file = target.make(folder)
    beside = {path: path.read_bytes() for path in file.parent.iterdir() if path.is_file()}
    target.read(folder)  # the valid file must be readable; this also imports everything
    found = Outcomes()
    with limit_time_and_memory():
        for at[1] in numbers:
            outcome = read_mutated_file(target, folder, file, beside[file], seed, at[1])
            if outcome in ("valid", "refused"):
                setattr(found, outcome, getattr(found, outcome) + 1)
            else:
                found.findings.append(describe_finding(target, seed, at[1], outcome))
            if target.update_checksums is not FuzzTarget.update_checksums:
                for path, content in beside.items():
                    path.write_bytes(content)
    return found


def describe_finding(target: FuzzTarget, seed: int, number: int, what: str) -> str:
    return f"{target.name}, seed {seed}, number {number}: {what}"


def run_worker(first: int, end: int, numbers: Sequence[int], seed: int, at: Any, results: Any) -> None:
    """Run the targets from index `first` to before `end`, and send their outcomes. `at[0]` holds the current index."""
    for at[0] in range(first, end):
        with tempfile.TemporaryDirectory() as folder:
            results.send(count_outcomes(TARGETS[at[0]], Path(folder), numbers, seed, at))


def fuzz(numbers: Sequence[int], seed: int, part: int = 0, parts: int = 1) -> Iterator[tuple[str, Outcomes]]:
    """Yield each target's name and the outcomes of its mutated files.

    A process of its own reads the files. If it ends, another one goes on with the next target.

    Args:
        numbers: The numbers of the mutated files of each target.
        seed: The seed of the mutations.
        part: Which part of the targets to run, from 0.
        parts: The number of parts that the targets are divided into.
    """
    done, end = (len(TARGETS) * n // parts for n in (part, part + 1))
    while done < end:
        ours, theirs = PROCESSES.Pipe(duplex=False)
        at = PROCESSES.RawArray("q", 2)
        process = PROCESSES.Process(target=run_worker, args=(done, end, numbers, seed, at, theirs))
        process.start()
        theirs.close()
        try:
            while done < end:
                before = tuple(at)
                while not ours.poll(STUCK):
                    if before == (before := tuple(at)):
                        process.kill()
                        break
                found = ours.recv()
                yield TARGETS[done].name, found
                done += 1
        except EOFError:
            process.join()
            what = f"the process ended with {process.exitcode}"
            yield TARGETS[done].name, Outcomes(findings=[describe_finding(TARGETS[done], seed, at[1], what)])
            done += 1
        process.join()
