"""README.md of an exported model: where it comes from, how good it is, and how to use it."""

import json

from minigpt.runs.run import Run
from minigpt.version import __version__

SPECIAL_TOKEN_LIMIT = "- The name of a special token, typed as text, is read as that token."


def format_model_card(run: Run, usage: str, limits: str, library: str | None = None) -> str:
    """Return a model card with the front matter that the Hugging Face hub reads.

    Args:
        run: the run that was exported.
        usage: how to open the model, in Markdown.
        limits: what the format does not do, in Markdown.
        library: name of the library that opens the model.
    """
    info, model, tokenizer = run.info, run.config.model, run.tokenizer
    front = [f"library_name: {library}"] if library else []
    front += ["pipeline_tag: text-generation", "tags:", "- mini-gpt"]
    facts = {
        "model": f"{model.architecture}, {info.parameters:,} parameters: {model.n_layer} blocks of {model.n_head} "
        f"heads, {model.n_embd} wide",
        "context": f"{model.block_size:,} tokens",
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab_size:,} tokens",
        "trained on": f"{json.dumps(info.data_source, ensure_ascii=False)}, {info.data_characters:,} characters",
        "SHA-256 of the data": info.data_sha256 or "unknown",
        "steps": f"{info.step:,}",
    }
    if info.validation_loss is not None:
        facts["validation loss"] = f"{info.validation_loss:.4f} nats per token"
    if info.bits_per_character is not None:
        facts["bits per character"] = f"{info.bits_per_character:.4f}"
    rows = [f"| {name} | {_escape(value)} |" for name, value in facts.items()]
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {_escape(run.path.name)}",
        f"A small language model, exported by Mini-Gpt {__version__}.",
        "\n".join(["| | |", "| --- | --- |", *rows]),
        f"## Use\n\n{usage}",
        f"## Limits\n\n{limits}",
    ]
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    """Return text that stays in its cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
