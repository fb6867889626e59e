"""What the page shows about a run: its card. This module does not need a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.config import ModelConfig
from minigpt.errors import MinigptError
from minigpt.runs.base_runs import find_trained_on_text
from minigpt.runs.run_listing import find_status, measure_size
from minigpt.runs.run_overview import RunOverview, find_start_ids
from minigpt.tokenizers.chat_format import CHAT_TOKENS

if TYPE_CHECKING:
    from minigpt.runs.run import Run

NGRAM_PREFIX = "ngram:"  # before a run's name: the n-gram model of its training text
NO_HEADS = "a bigram model has no attention heads and no blocks: take a transformer's run"
NO_NGRAM_HEADS = "an n-gram model has no attention heads and no blocks: take a transformer's run"
NO_TEXT = "the training text of this run is not known"


def describe_run(name: str, overview: "RunOverview | Run") -> dict[str, Any]:
    """Return what docs/web_api.md says of a run.

    Args:
        name: the name under which it is served.
        overview: the run, with or without its model.
    """
    info, model = overview.info, overview.config.model
    has_blocks = model.architecture != "bigram"
    no_heads = None if has_blocks else NO_HEADS
    start = find_start_ids(overview.tokenizer, info)
    return {
        "name": name,
        "kind": _name_kind(model),
        "tokenizer": overview.tokenizer.kind,
        "parameters": info.parameters,
        "bytes": measure_size(overview.path),
        "status": find_status(overview.path, info),
        "started": info.started,
        "steps": info.step,
        "preset": overview.config.preset,
        "validation_loss": info.validation_loss,
        "bits_per_byte": info.bits_per_byte,
        "block_size": model.block_size,
        "n_layer": model.n_layer if has_blocks else 0,
        "n_head": model.n_head if has_blocks else 0,
        "quantization": model.quantization,
        "base": info.base,
        "start": [{"id": i, "text": overview.tokenizer.decode([i])} for i in start],
        "is_chat": all(token in overview.tokenizer.special_tokens for token in CHAT_TOKENS),
        "views": {
            "attention": no_heads,
            "lens": no_heads,
            "ablation": no_heads,
            "memorization": None if has_text(overview) else NO_TEXT,
        },
        "error": None,
    }


def describe_companion(card: dict[str, Any]) -> dict[str, Any]:
    """Return the card of the n-gram model of a run's training text."""
    unknown = dict.fromkeys(("status", "parameters", "validation_loss", "bits_per_byte", "base"))
    views = {**dict.fromkeys(("attention", "lens", "ablation"), NO_NGRAM_HEADS), "memorization": None}
    shape = {"n_layer": 0, "n_head": 0, "steps": 0, "bytes": 0, "quantization": "none", "is_chat": False}
    return {**card, **unknown, **shape, "name": NGRAM_PREFIX + card["name"], "kind": "ngram", "views": views}


def _name_kind(model: ModelConfig) -> str:
    """Return the name of the model's class for a reader."""
    if model.architecture != "gpt":
        return model.architecture
    return "lecture" if model.implementation == "lecture" else "gpt"


def has_text(overview: "RunOverview | Run") -> bool:
    """Return True if the run's training text seems to be where it was. Opening it may still fail.

    Of a run that learned instructions or preferences, it is the text of the base.
    """
    try:
        _, info = find_trained_on_text(overview.path, overview.info)
    except MinigptError:  # the base is not there any more, or its text is not known
        return False
    return all(Path(path).exists() for path in info.data_paths or ())
