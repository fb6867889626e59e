"""A run as a page needs it that computes by itself: a description in JSON, and the bytes of the weights.

static/engine/model_file.js reads both.
"""

import base64
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import ExchangeError
from minigpt.exchange.export_model import copy_model
from minigpt.model import TrainedModel
from minigpt.model.quantization import Linear8bit, dequantize_int8, quantize_int8, quantize_layers
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.web.run_cards import describe_run

NO_TEXT = "this file does not have the training text"
MODEL_FIELDS = ("architecture", "vocab_size", "block_size", "n_embd", "n_head", "n_layer", "activation")
ALIGNMENT = 4  # bytes: a Float32Array begins at a multiple of it


class Embedding8bit(nn.Module):
    """An embedding table that stores its rows in int8."""

    codes: Tensor  # (N, C), int8
    scale: Tensor  # (N,)

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        codes, scale = quantize_int8(table.weight.detach())
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Tensor:
        """The table (N, C) in full precision."""
        return dequantize_int8(self.codes, self.scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids: (...) -> (..., C)."""
        return self.weight[ids]


def copy_for_page(run: Run, quantize: str | None) -> TrainedModel:
    """Return a copy of a run's model, with its linear layers and embeddings in int8 if `quantize` is "int8"."""
    model = copy_model(run, dequantize=True)
    if quantize is not None:
        quantize_layers(model, "int8")
        for name, table in [*model.named_children()]:
            if isinstance(table, nn.Embedding):
                setattr(model, name, Embedding8bit(table))
    return model.eval()


def describe_model(run: Run, model: TrainedModel) -> tuple[dict[str, Any], bytes]:
    """Return the description and the weights.

    Args:
        run: the run.
        model: of `copy_for_page`.

    Raises:
        ExchangeError: the page cannot read the run's tokenizer.
    """
    tensors, weights = _store_tensors(model)
    directory = RunDirectory(run.path)
    tokenizer = run.tokenizer
    is_chat = all(name in tokenizer.special_tokens for name in CHAT_TOKENS)
    card = describe_run(run.path.resolve().name, run)
    description = {
        "run": {**card, "bytes": len(weights), "views": {**card["views"], "memorization": NO_TEXT}},
        "config": {name: getattr(run.config.model, name) for name in MODEL_FIELDS},
        "tensors": tensors,
        "tokenizer": describe_tokenizer(tokenizer, str(run.path)),
        "ends": sorted(tokenizer.special_tokens.values()),
        "chat_tokens": dict(tokenizer.special_tokens) if is_chat else None,
        "exchanges": run.info.exchanges,
        "metrics": [dataclasses.asdict(each) for each in run.metrics],
        "snapshots": [dataclasses.asdict(each) for each in directory.read_snapshots()],
    }
    return description, weights


def _store_tensors(model: TrainedModel) -> tuple[list[dict[str, Any]], bytes]:
    """Return where each tensor stands in the bytes, and the bytes."""
    content, tensors = bytearray(), []

    def store(tensor: Tensor) -> int:
        content.extend(b"\0" * (-len(content) % ALIGNMENT))
        start = len(content)
        content.extend(tensor.detach().contiguous().numpy().tobytes())
        return start

    def add(name: str, tensor: Tensor, scale: Tensor | None = None) -> None:
        scales = None if scale is None else store(scale.float())
        tensors.append({"name": name, "shape": list(tensor.shape), "start": store(tensor), "scales": scales})

    quantized = {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear8bit | Embedding8bit)}
    for name, layer in quantized.items():
        add(f"{name}.weight", layer.codes, layer.scale)
    for name, tensor in model.state_dict().items():
        owner, _, part = name.rpartition(".")
        if owner not in quantized or part == "bias":
            add(name, tensor.to(torch.float32))
    return tensors, bytes(content)


def describe_tokenizer(tokenizer: Tokenizer, run: str) -> dict[str, Any]:
    """Return a tokenizer as static/engine reads it. Raise ExchangeError for a kind that it does not know."""
    if isinstance(tokenizer, CharTokenizer):
        special, unknown = list(tokenizer.special_tokens), tokenizer.unknown
        return {"kind": "char", "characters": list(tokenizer.stoi), "special_tokens": special, "unknown": unknown}
    if isinstance(tokenizer, BPETokenizer) and not tokenizer.added_tokens:
        ids = tokenizer.ids
        return {
            "kind": "bpe",
            "pattern": tokenizer.pattern,
            "tokens": [base64.b64encode(tokenizer.vocab[i]).decode() for i in range(tokenizer.vocab_size)],
            "byte_ids": [ids[bytes([byte])] for byte in range(256)],
            "merges": [[ids[first], ids[second], ids[first + second]] for first, second in tokenizer.merges],
        }
    reason = "splits text at added tokens" if isinstance(tokenizer, BPETokenizer) else f"is {tokenizer.kind}"
    raise ExchangeError(
        f"a page has character and BPE tokenizers only, and the tokenizer of {run!r} {reason}: export it with --to hf"
    )
