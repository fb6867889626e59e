"""Export a run's weights under the names of the lecture's own code, whose `load_state_dict` takes them."""

import json
from pathlib import Path

import safetensors.torch
import torch

from minigpt.errors import ExchangeError
from minigpt.exchange.export_check import LogitComparison, choose_check_ids, require_equal_logits
from minigpt.exchange.export_model import copy_gpt
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.model_card import format_model_card
from minigpt.exchange.pickles import load_own_tensors, serialize_checkpoint
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.runs.run import Run
from minigpt.system.files import create_folder, write_atomic
from minigpt.tokenizers.char import CharTokenizer

FILES = ("model.pt", "model.safetensors", "vocabulary.json", "README.md")
_USAGE = """With the lecture's own code, or with `minigpt/model/lecture.py`:

```python
import json
import torch

model.load_state_dict(torch.load("model.pt", weights_only=True), strict=True)
chars = json.load(open("vocabulary.json"))  # a token's id is its place in this list
stoi = {character: i for i, character in enumerate(chars)}
```

The sizes of the model must be those of the table."""


def write_lecture(run: Run, folder: Path, options: ExportOptions) -> None:
    """Write the lecture's state dict as model.pt and model.safetensors, and the list of characters.

    The arguments and errors are those of `Format.write`.
    """
    if not isinstance(run.tokenizer, CharTokenizer):
        raise ExchangeError(
            f"the lecture's code knows characters only, and {str(run.path)!r} has a {run.tokenizer.kind} tokenizer: "
            "export it with --to hf"
        )
    model = _build(run, options.dequantize)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    create_folder(folder)
    write_atomic(folder / "model.pt", serialize_checkpoint(weights))
    write_atomic(folder / "model.safetensors", safetensors.torch.save(weights))
    characters = [run.tokenizer.decode([i]) for i in range(run.tokenizer.vocab_size)]
    write_atomic(folder / "vocabulary.json", json.dumps(characters, ensure_ascii=False).encode() + b"\n")
    limits = f"- The model sees at most {run.config.model.block_size:,} characters."
    write_atomic(folder / "README.md", format_model_card(run, _USAGE, limits).encode())


def check_lecture(run: Run, folder: Path, options: ExportOptions) -> LogitComparison:
    """Load model.pt into `model/lecture.py`, and compare its logits with the run's."""
    kind = BigramLanguageModel if run.config.model.architecture == "bigram" else GPTLanguageModel
    model = kind(run.config.override(quantization="none").model).eval()
    model.load_state_dict(load_own_tensors(folder / "model.pt"), strict=True)
    ids = choose_check_ids(run)
    with torch.inference_mode():
        theirs = model(ids)[0]
    return require_equal_logits(theirs, run, ids, "the lecture's code")


def _build(run: Run, dequantize: bool) -> BigramLanguageModel | GPTLanguageModel:
    """Return the lecture's model that computes the run's function."""
    if isinstance(run.model, BigramLanguageModel | GPTLanguageModel):
        return run.model
    model = copy_gpt(run, dequantize)
    try:
        weights = model.to_lecture()
    except ValueError:
        raise ExchangeError(
            f"the lecture's code has no GELU, no tied head and no bias on queries, keys and values, and "
            f"{str(run.path)!r} has: export it with --to hf"
        ) from None
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
        lecture = GPTLanguageModel(model.config)
    lecture.load_state_dict(weights, strict=False)  # without the masks, which are constants
    return lecture.eval()
