"""Export a run as the `ckpt.pt` and `meta.pkl` that nanoGPT's sample.py opens."""

from pathlib import Path

import torch

from minigpt.errors import ExchangeError
from minigpt.exchange.export_check import LogitComparison, choose_check_ids, require_equal_logits
from minigpt.exchange.export_model import copy_gpt, get_gpt2_weights
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.model_card import format_model_card
from minigpt.exchange.nanogpt_import import CHECKPOINT, VOCABULARY, load_nanogpt
from minigpt.exchange.pickles import serialize_checkpoint, serialize_vocabulary
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import map_gpt2_names
from minigpt.runs.run import Run
from minigpt.system.files import create_folder, write_atomic
from minigpt.tokenizers.char import CharTokenizer

FILES = (CHECKPOINT, VOCABULARY, "README.md")
_USAGE = """In a clone of nanoGPT, with this folder copied to `data/{name}`:

```sh
python sample.py --out_dir=data/{name} --device=cpu --num_samples=1
```

`--start="the"` gives the beginning of the text; without it, that is a line break."""


def write_nanogpt(run: Run, folder: Path, options: ExportOptions) -> None:
    """Write nanoGPT's checkpoint and vocabulary.

    The arguments and errors are those of `Format.write`.
    """
    model = copy_gpt(run, options.dequantize)
    _require_supported(run, model)
    config, name = model.config, run.path.resolve().name
    content = {
        "model": convert_to_nanogpt(model),
        "model_args": {
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "block_size": config.block_size,
            "bias": True,
            "vocab_size": config.vocab_size,
            "dropout": config.dropout,
        },
        "iter_num": run.info.step,
        "best_val_loss": run.info.validation_loss,
        "config": {"dataset": name},  # sample.py reads data/<dataset>/meta.pkl
    }
    itos = {i: run.tokenizer.decode([i]) for i in range(run.tokenizer.vocab_size)}
    meta = {"vocab_size": len(itos), "itos": itos, "stoi": {token: i for i, token in itos.items()}}
    create_folder(folder)
    write_atomic(folder / CHECKPOINT, serialize_checkpoint(content))
    write_atomic(folder / VOCABULARY, serialize_vocabulary(meta))
    limits = (
        f"- The model sees at most {config.block_size:,} characters.\n"
        "- nanoGPT stops with a KeyError at a character that is not in the vocabulary.\n"
        "- The state of the optimizer is not here, so nanoGPT's train.py cannot resume the training."
    )
    write_atomic(folder / "README.md", format_model_card(run, _USAGE.format(name=name), limits).encode())


def check_nanogpt(run: Run, folder: Path, options: ExportOptions) -> LogitComparison:
    """Import the checkpoint again, and compare its logits with the run's."""
    model = load_nanogpt(folder / CHECKPOINT)
    ids = choose_check_ids(run)
    with torch.inference_mode():
        theirs = model(ids)[0]
    return require_equal_logits(theirs, run, ids, "minigpt import nanogpt")


def convert_to_nanogpt(model: GPT) -> dict[str, torch.Tensor]:
    """Return the parameters of a GPT with a tied head under nanoGPT's names."""
    ours = get_gpt2_weights(model)
    weights = {f"transformer.{theirs}": ours[name] for name, theirs in map_gpt2_names(model.config).items()}
    return weights | {"lm_head.weight": weights["transformer.wte.weight"]}


def _require_supported(run: Run, model: GPT) -> None:
    """Raise ExchangeError for a run that nanoGPT's code cannot compute or read."""
    differences = [] if model.config.tied_head else ["a head of its own, not the token embedding"]
    if model.config.activation != "gelu_exact":
        differences.append(f"the activation {model.config.activation}, not gelu_exact")
    if differences:
        raise ExchangeError(
            f"nanoGPT has one kind of GPT, and {str(run.path)!r} has {' and '.join(differences)}: train with --preset "
            "nanogpt-cpu, or with --tied-head --activation gelu_exact"
        )
    if not isinstance(run.tokenizer, CharTokenizer):
        raise ExchangeError(
            f"nanoGPT's meta.pkl holds characters only, and {str(run.path)!r} has a {run.tokenizer.kind} tokenizer: "
            "train with --tokenizer char, or export it with --to hf"
        )
