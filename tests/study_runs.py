"""A small run of each kind, with random weights: what the studies and the playground must work with."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from fuzz_targets import bpe_tokenizer, char_tokenizer, sentencepiece
from random_runs import make_random_run

from minigpt.finetuning.lora import apply_lora
from minigpt.model.ngram import NGramModel
from minigpt.runs.run import Run

T = 8  # block_size
SETTINGS: dict[str, dict[str, Any]] = {
    "gpt": {},
    "lecture": {"implementation": "lecture"},
    "gpt2": {"activation": "gelu", "qkv_bias": True, "tied_head": True},
    "modern": {"architecture": "modern"},
    "bigram": {"architecture": "bigram"},
    "ngram": {},
    "bpe": {},
    "sentencepiece": {"architecture": "modern"},
    "nf4": {"quantization": "nf4"},
    "lora": {},
    "short": {"block_size": 1},
}
KINDS = tuple(SETTINGS)
WITHOUT_BLOCKS = ("bigram", "ngram")
TRANSFORMERS = tuple(kind for kind in KINDS if kind not in WITHOUT_BLOCKS)


def make_study_run(kind: str, folder: Path, **settings: Any) -> Run:
    """Write the run of a kind, perhaps with other settings, and open it."""
    tokenizer = {"bpe": bpe_tokenizer, "sentencepiece": sentencepiece}.get(kind, char_tokenizer)()
    run = make_random_run(folder, tokenizer, **{"block_size": T} | SETTINGS[kind] | settings)
    if kind == "lora":
        apply_lora(run.model, rank=2)
        for name, parameter in run.model.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    if kind == "ngram":
        model: Any = NGramModel.fit(run.dataset().train, run.tokenizer.vocab_size, order=4)
        return dataclasses.replace(run, model=model)
    return run


def compute_plain_logits(run: Run, ids: list[int]) -> torch.Tensor:
    """The logits (V,) of the token after the last block_size ids, by one call of the model."""
    with torch.no_grad():
        return run.model(torch.tensor([ids[-run.model.config.block_size :]]))[0][0, -1]
