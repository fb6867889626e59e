"""Add tokens to a trained model: special tokens, and new characters.

The tokenizer and the model's tables grow; every row that was there keeps its values. With adapters, only the rows of
the new tokens train beside them. In the adapter's folder these rows lie in tokens.safetensors, beside the tokenizer.
For PEFT they are in the adapter's own file too, as trainable tokens.

A list called `old_ids` links the two vocabularies: entry n is the id of token n in the base, None for a new token.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from minigpt.errors import DataError, ExchangeError, FileError
from minigpt.finetuning.replaced_weights import Replacement, replace_weights
from minigpt.model import TrainedModel
from minigpt.model.language_model import get_device
from minigpt.model.meta_init import build_empty_model
from minigpt.runs.run import Run
from minigpt.system.files import write_atomic
from minigpt.system.safetensors_files import read_tensors
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.loading import load_tokenizer

TABLES = ("token_embedding_table.weight", "lm_head.weight", "lm_head.bias")  # tensors that have a row for each token
INIT_STD = 0.02  # standard deviation of new rows: that of GPT's initial weights
TOKENS, TOKENIZER, OLD_IDS, EXCHANGES = "tokens.safetensors", "tokenizer.json", "old", "exchanges"
NEW = -1  # stands for None where old ids are a tensor


def extend_tokenizer(
    tokenizer: Tokenizer, special: Sequence[str], texts: Iterable[str] = ()
) -> tuple[Tokenizer, list[int | None]]:
    """Return a tokenizer that also has these special tokens, and `old_ids`.

    Args:
        tokenizer: the base's tokenizer.
        special: names of special tokens.
        texts: a character tokenizer without an unknown token also gets all characters of these texts.

    Raises:
        DataError: the tokenizer cannot have more tokens.
    """
    missing = [name for name in special if name not in tokenizer.special_tokens]
    if isinstance(tokenizer, CharTokenizer):
        return _extend_characters(tokenizer, missing, texts)
    if isinstance(tokenizer, BPETokenizer):
        count, specials = tokenizer.vocab_size, tokenizer.special_tokens
        all_specials = {**specials, **{name: count + n for n, name in enumerate(missing)}}
        larger = BPETokenizer(tokenizer.merges, all_specials, tokenizer.pattern, tokenizer.ids, tokenizer.added_tokens)
        return larger, [*range(count), *[None] * len(missing)]
    if missing:
        raise DataError("a SentencePiece model cannot be given special tokens: take a base of characters or BPE")
    return tokenizer, list(range(tokenizer.vocab_size))


def _extend_characters(
    tokenizer: CharTokenizer, missing: Sequence[str], texts: Iterable[str]
) -> tuple[Tokenizer, list[int | None]]:
    """Return a character tokenizer with these tokens and characters added, and `old_ids`."""
    has_unknown_token = tokenizer.unknown is not None
    more = set() if has_unknown_token else set().union(*map(set, texts)) - tokenizer.stoi.keys()
    characters = [*tokenizer.stoi, *sorted(more)]
    larger = CharTokenizer(characters, [*tokenizer.special_tokens, *missing], tokenizer.unknown)
    old_ids: list[int | None] = [tokenizer.stoi.get(character) for character in characters]
    return larger, old_ids + [tokenizer.special_tokens.get(name) for name in larger.special_tokens]


def resize_embeddings(model: TrainedModel, old_ids: Sequence[int | None], seed: int) -> TrainedModel:
    """Return a model with a row for each entry of `old_ids`: the old row's exact values, or new random ones.

    Args:
        model: the model before; returned as it is where nothing changes.
        old_ids: what each token was in it, None for a new one.
        seed: for the new rows.
    """
    if list(old_ids) == list(range(model.config.vocab_size)):
        return model
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: _resize_rows(tensor, old_ids, generator) if name in TABLES else tensor
        for name, tensor in model.state_dict().items()
    }
    larger = build_empty_model(dataclasses.replace(model.config, vocab_size=len(old_ids)))
    larger.load_state_dict(weights, assign=True)
    return larger.train(model.training)


def _resize_rows(tensor: Tensor, old_ids: Sequence[int | None], generator: torch.Generator) -> Tensor:
    """Return the old rows, and for new tokens small random numbers; zeros in a bias."""
    rows = torch.zeros(len(old_ids), *tensor.shape[1:], dtype=tensor.dtype)
    if tensor.dim() > 1:
        rows.normal_(std=INIT_STD, generator=generator)
    kept = [n for n, i in enumerate(old_ids) if i is not None]
    rows[kept] = tensor.cpu()[[i for i in old_ids if i is not None]]
    return rows.to(tensor.device)


def train_new_rows(model: nn.Module, old_ids: Sequence[int | None], name: str = "default") -> None:
    """Let the rows of new tokens train, in place; the other rows of their tables are frozen.

    Args:
        model: a model with a row for each entry of `old_ids`.
        old_ids: what each token was in the base, None for a new one.
        name: the adapter that the rows belong to.
    """
    new_ids = torch.tensor([n for n, i in enumerate(old_ids) if i is None], device=get_device(model))
    tables = {table: weight for table, weight in model.named_parameters() if table in TABLES}
    replace_weights(model, {table: Replacement(weight[new_ids], new_ids) for table, weight in tables.items()}, name)


def find_moved_ids(old_ids: Sequence[int | None]) -> list[int]:
    """Return the tokens that the base has under another id."""
    return [n for n, i in enumerate(old_ids) if i not in (n, None)]


def save_new_tokens(folder: Path, weights: Mapping[str, Tensor], old_ids: Sequence[int | None], run: Run) -> None:
    """Write the rows of new tokens and the tokenizer into an adapter's folder.

    Args:
        folder: the adapter's folder.
        weights: the weights of the fine-tuned model.
        old_ids: what each token was in the base, None for a new one.
        run: the fine-tuned run.

    Raises:
        FileError: a file cannot be written.
    """
    new_ids = [n for n, i in enumerate(old_ids) if i is None]
    tensors = {name: weights[name].detach().cpu()[new_ids].contiguous() for name in TABLES if name in weights}
    tensors[OLD_IDS] = torch.tensor([NEW if i is None else i for i in old_ids])
    write_atomic(folder / TOKENS, safetensors.torch.save(tensors, {EXCHANGES: str(run.info.exchanges or 0)}))
    write_atomic(folder / TOKENIZER, run.tokenizer.to_bytes())


def load_new_tokens(run: Run, folder: Path) -> Run:
    """Return a run with the tokens of an adapter's folder added.

    Raises:
        ExchangeError: a file is damaged or does not fit the run.
        FileError: a file cannot be read.
    """
    path = folder / TOKENS
    rows, metadata = read_tensors(path)
    try:
        tokenizer = load_tokenizer(folder / TOKENIZER)
    except FileError as error:
        raise ExchangeError(f"{str(folder)!r} is damaged: {error}") from None
    ids = rows.pop(OLD_IDS, torch.empty(0))
    fits = ids.dtype == torch.int64 and ids.shape == (tokenizer.vocab_size,)
    if not fits or not ((ids >= NEW) & (ids < run.tokenizer.vocab_size)).all():
        raise ExchangeError(f"{str(path)!r} does not fit this model: its tokens are not the base's and more")
    model = resize_embeddings(run.model, [None if i == NEW else i for i in ids.tolist()], seed=0)
    _load_rows(model, rows, ids == NEW, path)
    config = run.config.override(vocab_size=tokenizer.vocab_size)
    exchanges = metadata.get(EXCHANGES, "")
    is_count = exchanges in map(str, range(1, 100))
    info = dataclasses.replace(run.info, exchanges=int(exchanges) if is_count else None)
    return dataclasses.replace(run, model=model, tokenizer=tokenizer, config=config, info=info)


def _load_rows(model: TrainedModel, rows: Mapping[str, Tensor], is_new: Tensor, path: Path) -> None:
    """Copy rows of new tokens, those where `is_new` (V,) is True, into a model's tables."""
    weights, count = model.state_dict(), int(is_new.sum())
    needed = {name: (count, *weights[name].shape[1:]) for name in TABLES if name in weights}
    if {name: tuple(tensor.shape) for name, tensor in rows.items()} != needed:
        raise ExchangeError(f"{str(path)!r} does not fit this model: it has no rows of {count} tokens for it")
    for name, tensor in rows.items():
        weights[name][is_new] = tensor.to(weights[name])
        if not weights[name].isfinite().all():
            raise ExchangeError(f"{str(path)!r} is damaged: {name} holds a value that is not a finite number")
