"""Export a run as a GGUF file of the architecture gpt2, which llama.cpp and ollama open."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ExchangeError, MissingExtraError
from minigpt.exchange.bias_folding import fold_head, has_head_bias
from minigpt.exchange.export_check import (
    FEWER_BITS,
    MAX_DIFFERENCE,
    TOKENS_FOR_LOSS,
    LogitComparison,
    choose_check_ids,
    choose_check_text,
    require_equal_logits,
)
from minigpt.exchange.export_model import copy_gpt
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.gguf_card import format_gguf_card, format_modelfile
from minigpt.exchange.gguf_import import load_gguf
from minigpt.exchange.gguf_names import MODEL, RELU_SCALE_KEY, SENTENCEPIECE_KEY, map_gguf_names
from minigpt.exchange.gguf_tokenizer import TokenType, Vocabulary, build_vocabulary
from minigpt.exchange.huggingface_export import convert_to_gpt2
from minigpt.exchange.huggingface_tokenizer import CHAT_TEMPLATE, find_end
from minigpt.exchange.llama_check import compute_llama_logits, open_llama
from minigpt.exchange.relu_as_gelu import RELU_SCALE, scale_relu_to_gelu
from minigpt.model.gpt2_names import is_transposed
from minigpt.runs.run import Run
from minigpt.system.files import create_folder, write_atomic
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILES = (MODEL, "Modelfile", "README.md")
QUANTIZATIONS = ("q8_0",)
GELU_TOLERANCE = 0.5  # llama.cpp looks GELU up in a table of 16 bits on CPUs; deep models add up its errors
_BLOCK = 32  # numbers of a row that share a scale in q8_0


def write_gguf(run: Run, folder: Path, options: ExportOptions) -> None:
    """Write a GGUF file, a Modelfile for ollama and a model card.

    llama.cpp's GPT-2 has no bias in its last layer (see `bias_folding`) and no ReLU (see `relu_as_gelu`). A tokenizer
    without a token that ends a text gets a reserved one, whose logit is -100, because llama.cpp would use token 11.
    The arguments and errors are those of `Format.write`. Raise MissingExtraError without gguf.
    """
    model, vocabulary = copy_gpt(run, options.dequantize), build_vocabulary(run.tokenizer)
    _require_supported(run, options)
    weights = convert_to_gpt2(model)
    end = find_end(run.tokenizer, bool(run.info.instructions))
    if end is None or has_head_bias(model):
        weights |= fold_head(model, add_constant_token=end is None)
    if end is None:
        end = vocabulary.append_reserved()
    if model.config.activation == "relu":
        _scale_feed_forward(weights, model.config.n_layer)
    create_folder(folder)
    name, has_instructions = run.path.resolve().name, bool(run.info.instructions)
    write_gguf_file(folder / MODEL, name, model.config, weights, vocabulary, end, options, has_instructions)
    write_atomic(folder / "Modelfile", format_modelfile(run, MODEL).encode())
    write_atomic(folder / "README.md", format_gguf_card(run, MODEL).encode())


def write_gguf_file(
    path: Path,
    name: str,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    end: int,
    options: ExportOptions,
    has_instructions: bool = False,
) -> None:
    """Write a GGUF file of the architecture gpt2.

    Args:
        path: the file.
        name: what the file calls the model.
        config: the shape of the model.
        weights: the parameters under GPT-2's names and in GPT-2's layout, as llama.cpp computes with them.
        vocabulary: the tokens.
        end: the token that begins and ends a text.
        options: whether matrices get 8 bits.
        has_instructions: True if the model follows instructions: then the file has a chat template.

    Raises:
        MissingExtraError: the package gguf is not installed.
    """
    writer = _open_writer(path)
    writer.add_name(name)
    _add_settings(writer, config, options)
    _add_vocabulary(writer, vocabulary, end, has_instructions)
    _add_tensors(writer, weights, config, options)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_gguf(run: Run, folder: Path, options: ExportOptions) -> LogitComparison | None:
    """Open the file in llama.cpp, and compare its tokens and logits with the run's.

    Without llama-cpp-python, a file with fewer bits is read and compared by `gguf_import`, for its error.

    Returns:
        The comparison, or None if llama-cpp-python is not installed and the file has all bits.

    Raises:
        ExchangeError: the tokens or the logits are others.
    """
    ids = choose_check_ids(run, TOKENS_FOR_LOSS if options.quantize else 0)
    vocab_size = run.config.model.vocab_size
    llama = open_llama(folder / MODEL, ids.shape[1])
    if llama is None and options.quantize is None:
        return None
    if llama is None:
        with torch.inference_mode():
            theirs = load_gguf(folder / MODEL)[0](ids)[0]
        return require_equal_logits(theirs, run, ids, "minigpt import gguf", FEWER_BITS)
    text = _choose_text(run, ids)
    if llama.tokenize(text.encode(), add_bos=False, special=False) != run.tokenizer.encode(text):
        raise ExchangeError(f"llama.cpp gives other tokens than the run for {text[:40]!r}")
    theirs = compute_llama_logits(llama, ids)[..., :vocab_size]
    tolerance = MAX_DIFFERENCE if run.config.model.activation == "relu" else GELU_TOLERANCE
    return require_equal_logits(theirs, run, ids, "llama.cpp", FEWER_BITS if options.quantize else tolerance)


def _choose_text(run: Run, ids: Tensor) -> str:
    """Return text that llama.cpp encodes as the run does: with unigram, without characters that have no piece."""
    text = choose_check_text(run, ids[0]).replace("\N{REPLACEMENT CHARACTER}", "")
    if isinstance(run.tokenizer, SentencePieceTokenizer) and run.tokenizer.method == "unigram":
        vocabulary = build_vocabulary(run.tokenizer)
        pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
        known = {" ", *(character for token, kind in pairs if kind == TokenType.NORMAL for character in token)}
        text = "".join(character for character in text if character in known)
    return text


def _require_supported(run: Run, options: ExportOptions) -> None:
    """Raise ExchangeError for an activation or a width that the file cannot have."""
    model = run.config.model
    if model.activation not in ("relu", "gelu"):
        raise ExchangeError(
            f"llama.cpp's GPT-2 has no activation {model.activation!r}, and {str(run.path)!r} has it: export it with "
            "--to hf, or train with --activation gelu"
        )
    if options.quantize and model.n_embd % _BLOCK:
        raise ExchangeError(
            f"{options.quantize} needs rows of {_BLOCK} numbers, and {str(run.path)!r} has n_embd {model.n_embd}: "
            "leave --quantize out"
        )


def _scale_feed_forward(weights: dict[str, Tensor], n_layer: int) -> None:
    """Replace ReLU by GELU in place. GPT-2's matrices are transposed, which does not matter here."""
    for layer in range(n_layer):
        names = [f"h.{layer}.mlp.{part}" for part in ("c_fc.weight", "c_fc.bias", "c_proj.weight")]
        up, up_bias, down = (weights[name] for name in names)
        weights |= dict(zip(names, scale_relu_to_gelu(up, up_bias, down), strict=True))


def _open_writer(path: Path) -> "GGUFWriter":
    """Open a file to write. Raise MissingExtraError if gguf is not installed."""
    try:
        from gguf import GGUFWriter
    except ImportError:
        raise MissingExtraError("gguf", "gguf") from None
    return GGUFWriter(path, "gpt2")


def _add_settings(writer: "GGUFWriter", config: ModelConfig, options: ExportOptions) -> None:
    """Add the sizes of the model."""
    import gguf

    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    if options.quantize:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{options.quantize.upper()}" if options.quantize else "ALL_F32"])
    if config.activation == "relu":
        writer.add_float32(RELU_SCALE_KEY, RELU_SCALE)


def _add_vocabulary(writer: "GGUFWriter", vocabulary: Vocabulary, end: int, has_instructions: bool) -> None:
    """Add the tokenizer, and the chat template of a run that follows instructions."""
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([int(kind) for kind in vocabulary.types])
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.unknown is not None:
        writer.add_unk_token_id(vocabulary.unknown)
    if vocabulary.sentencepiece is not None:
        writer.add_array(SENTENCEPIECE_KEY, vocabulary.sentencepiece)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    if has_instructions:
        writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(
    writer: "GGUFWriter", weights: Mapping[str, Tensor], config: ModelConfig, options: ExportOptions
) -> None:
    """Add the weights. Matrices get fewer bits if asked for, but not those that `relu_as_gelu` has scaled."""
    import gguf

    kind = gguf.GGMLQuantizationType[(options.quantize or "f32").upper()]
    is_scaled = config.activation == "relu"
    names = map_gguf_names(config) | {"lm_head.weight": "output.weight"}
    for theirs, tensor in weights.items():
        values = np.ascontiguousarray((tensor.T if is_transposed(theirs) else tensor).numpy())
        is_kept = values.ndim == 1 or theirs == "wpe.weight" or (is_scaled and ".mlp." in theirs)
        if options.quantize and not is_kept:
            writer.add_tensor(names[theirs], gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(names[theirs], values)
