"""Export a run as a folder that transformers opens without custom code: `GPT2LMHeadModel` and `AutoTokenizer`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.errors import ExchangeError
from minigpt.exchange.bias_folding import fold_head, has_head_bias
from minigpt.exchange.export_check import LogitComparison, choose_check_ids, choose_check_text, require_equal_logits
from minigpt.exchange.export_model import copy_gpt, get_gpt2_weights
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.huggingface_adapter import ADAPTER, copy_adapter
from minigpt.exchange.huggingface_config import (
    TOKENIZER_FILES,
    describe_gpt2,
    find_begin_and_end,
    write_json,
    write_tokenizer_files,
)
from minigpt.exchange.huggingface_tokenizer import UNKNOWN_TOKEN_LIMIT, should_add_unknown_token
from minigpt.exchange.model_card import SPECIAL_TOKEN_LIMIT, format_model_card
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import is_transposed, map_gpt2_names
from minigpt.runs.run import Run
from minigpt.system.files import create_folder, write_atomic

FILES = ("config.json", "model.safetensors", *TOKENIZER_FILES, "README.md", ADAPTER)
_ADAPTER_USAGE = """This model has the weights of the LoRA adapter already. The folder `adapter` has them alone, for
PEFT, over the export of the run that was fine-tuned:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("PATH OF THE BASE'S EXPORT")
model = PeftModel.from_pretrained(base, "PATH OF THIS FOLDER/adapter")
```"""


def write_huggingface(run: Run, folder: Path, options: ExportOptions) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` open.

    A bias of the last layer is moved elsewhere, see `bias_folding`. A character tokenizer gets a token <unk>, whose
    logit is -100.
    The arguments and errors are those of `Format.write`.
    """
    model = copy_gpt(run, options.dequantize)
    config, weights = model.config, convert_to_gpt2(model)
    if should_add_unknown_token(run.tokenizer) or has_head_bias(model):
        config = dataclasses.replace(
            config, tied_head=False, vocab_size=config.vocab_size + should_add_unknown_token(run.tokenizer)
        )
        weights |= fold_head(model, should_add_unknown_token(run.tokenizer))
    _write_folder(folder, config, weights, find_begin_and_end(run))
    write_tokenizer_files(run, folder)
    has_adapter = copy_adapter(run, folder)
    write_atomic(folder / "README.md", _format_card(run, bool(run.info.instructions), has_adapter).encode())


def check_huggingface(run: Run, folder: Path, options: ExportOptions) -> LogitComparison | None:
    """Open the folder in transformers, and compare its tokens and logits with the run's.

    Returns:
        The comparison, or None if transformers is not installed.

    Raises:
        ExchangeError: the tokens or the logits are others.
    """
    try:
        from transformers import AutoTokenizer, GPT2LMHeadModel
        from transformers.utils import logging
    except ImportError:
        return None
    ids = choose_check_ids(run)
    text = choose_check_text(run, ids[0])
    if AutoTokenizer.from_pretrained(folder)(text)["input_ids"] != run.tokenizer.encode(text):
        raise ExchangeError(f"transformers gives other tokens than the run for {text[:40]!r}")
    show_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = GPT2LMHeadModel.from_pretrained(folder)
    finally:
        if show_progress:
            logging.enable_progress_bar()
    with torch.inference_mode():
        theirs = model(ids).logits[..., : run.config.model.vocab_size]
    return require_equal_logits(theirs, run, ids, "transformers")


def save_gpt2(model: GPT, folder: str | Path) -> None:
    """Write the weights and config.json of a folder that `GPT2LMHeadModel.from_pretrained` opens.

    Raises:
        ExchangeError: the last layer has a bias, because GPT-2's has none.
        FileError: the folder cannot be written.
    """
    if has_head_bias(model):
        raise ExchangeError("GPT-2 has no bias in its last layer, and this model has one: train it with --tied-head")
    _write_folder(Path(folder), model.config, convert_to_gpt2(model), {"bos_token_id": None, "eos_token_id": None})


def convert_to_gpt2(model: GPT) -> dict[str, Tensor]:
    """Return a GPT's parameters under GPT-2's names and in GPT-2's layout."""
    weights = get_gpt2_weights(model)
    names = map_gpt2_names(model.config)
    return {theirs: weights[ours].T if is_transposed(theirs) else weights[ours] for ours, theirs in names.items()}


def _write_folder(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], tokens: Mapping[str, Any]) -> None:
    """Write model.safetensors and config.json."""
    named = {
        (name if name.startswith("lm_head") else f"transformer.{name}"): tensor.contiguous()
        for name, tensor in weights.items()
    }
    create_folder(folder)
    write_atomic(folder / "model.safetensors", safetensors.torch.save(named, metadata={"format": "pt"}))
    write_json(folder / "config.json", describe_gpt2(config, tokens))


def _format_card(run: Run, has_instructions: bool, has_adapter: bool) -> str:
    """Return the model card."""
    usage = """```python
from transformers import pipeline

write = pipeline("text-generation", model="PATH OF THIS FOLDER")
print(write("the", do_sample=True)[0]["generated_text"])
```"""
    if has_instructions:
        usage = usage.replace('write("the", do_sample=True)', 'write([{"role": "user", "content": "the"}])')
    if has_adapter:
        usage += f"\n\n{_ADAPTER_USAGE}"
    limits = [
        f"- A prompt and its continuation have at most {run.config.model.block_size:,} tokens together.",
        f"- Without a prompt, the text begins after the token {run.encode_prompt('')[0]}, "
        f"{run.tokenizer.decode(run.encode_prompt('')[:1])!r}.",
    ]
    if should_add_unknown_token(run.tokenizer):
        limits.append(UNKNOWN_TOKEN_LIMIT)
    if run.tokenizer.special_tokens:
        limits.append(SPECIAL_TOKEN_LIMIT)
    return format_model_card(run, usage, "\n".join(limits), "transformers")
