"""Tokens that an adapter brings along: those that its base lacks, such as the marks between turns.

Beside frozen weights the rows of new tokens train, and nothing else of the tables does. In the adapter's folder they
lie in tokens.safetensors, with what each token was in the base, and the tokenizer that has them is beside it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minigpt.errors import ExchangeError, FileError
from minigpt.finetuning.vocabulary_resize import ROWS, with_tokens
from minigpt.runs.run import Run
from minigpt.system.files import write_atomic
from minigpt.system.untrusted_tensors import read_tensors
from minigpt.tokenizers.loading import load_tokenizer

TOKENS, TOKENIZER, OLD, EXCHANGES = "tokens.safetensors", "tokenizer.json", "old", "exchanges"
NEW = -1  # stands for what a new token was in the base


class NewRows(nn.Module):
    """Some rows of a table (V, ...) that train, while the others stay frozen."""

    def __init__(self, table: Tensor, new: Tensor) -> None:
        super().__init__()
        self.new: Tensor
        self.register_buffer("new", new, persistent=False)
        self.rows = nn.Parameter(table.detach()[new].clone())

    def forward(self, table: Tensor) -> Tensor:
        """The table with those rows in their places."""
        return table.index_copy(0, self.new, self.rows)


def train_new_rows(model: nn.Module, old: Sequence[int | None]) -> None:
    """Let the rows of new tokens, those whose `old` id is None, train beside what is frozen."""
    new = torch.tensor([n for n, i in enumerate(old) if i is None], device=next(model.parameters()).device)
    for module, name in tables(model):
        table = getattr(module, name).requires_grad_(False)
        parametrize.register_parametrization(module, name, NewRows(table, new), unsafe=True)  # spares a trial


def tables(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """What has a row for each token: modules, and the names of their tensors."""
    found = []
    for row in ROWS:
        path, _, name = row.rpartition(".")
        module = getattr(model, path, None)
        if module is not None and getattr(module, name, None) is not None:
            found.append((module, name))
    return found


def save_tokens(folder: Path, weights: Mapping[str, Tensor], old: Sequence[int | None], run: Run) -> None:
    """Write the new rows of a run's weights into an adapter's folder, and its tokenizer. Raises FileError."""
    new = [n for n, i in enumerate(old) if i is None]
    kept = {name: weights[name].detach().cpu()[new].contiguous() for name in ROWS if name in weights}
    kept[OLD] = torch.tensor([NEW if i is None else i for i in old])
    write_atomic(folder / TOKENS, safetensors.torch.save(kept, {EXCHANGES: str(run.record.exchanges or 0)}))
    write_atomic(folder / TOKENIZER, run.tokenizer.to_bytes())


def with_saved_tokens(run: Run, folder: Path) -> Run:
    """The run with the tokens from an adapter's folder. Raises ExchangeError for what doesn't fit it, FileError."""
    path = folder / TOKENS
    found, metadata = read_tensors(path)
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER)
    except FileError as error:
        raise ExchangeError(f"{str(folder)!r} is damaged: {error}") from None
    ids = found.pop(OLD, torch.empty(0))
    size, count = run.tokenizer.vocab_size, int((ids == NEW).sum())
    fits = ids.dtype == torch.int64 and ids.shape == (tokenizer.vocab_size,)
    if not fits or not ((ids >= NEW) & (ids < size)).all():
        raise ExchangeError(f"{str(path)!r} does not fit this model: its tokens are not the base's and more")
    old = [None if i == NEW else i for i in ids.tolist()]
    model = with_tokens(run.model, old, 0)
    weights = model.state_dict()
    needed = {name: (count, *weights[name].shape[1:]) for name in ROWS if name in weights}
    if {name: tuple(rows.shape) for name, rows in found.items()} != needed:
        raise ExchangeError(f"{str(path)!r} does not fit this model: it has no rows of {count} tokens for it")
    for name, rows in found.items():
        weights[name][ids == NEW] = rows.to(weights[name])
        if not weights[name].isfinite().all():
            raise ExchangeError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")
    config = run.config.override(vocab_size=tokenizer.vocab_size)
    said = metadata.get(EXCHANGES, "")
    record = dataclasses.replace(run.record, exchanges=int(said) if said in map(str, range(1, 100)) else None)
    return dataclasses.replace(run, model=model, tokenizer=tokenizer, config=config, record=record)
