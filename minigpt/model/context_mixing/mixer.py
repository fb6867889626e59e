"""The model: its settings, and what a program does with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy import ndarray

from minigpt.errors import ConfigError, DataError
from minigpt.model.context_mixing.code_tree import build_huffman_tree
from minigpt.model.context_mixing.contexts import EXPERTS, CharacterTable
from minigpt.model.context_mixing.memory import COUNTED, create_memory, create_place
from minigpt.model.context_mixing.mixing import Rates, predict_token, read_text

GENERATION_CONTEXT = 4000  # characters before the next one that are read


@dataclass(frozen=True)
class ContextMixingConfig:
    """The settings of a context-mixing model. The defaults were chosen on the last tenth of a training text.

    Args:
        vocab_size: the number of different characters.
        delay: characters between a prediction and the newest text in its counts, while the weights are learned; at
            most a thirtieth of the text. 0 for a model that goes on learning while it reads (adaptive).
        rate: the learning rate of the weights at the start.
        decay: the rate at character i is rate / (1 + decay * sqrt(i / 1000)).
        start_weight: of each input.
        slot_limit: the smallest step of a slot's probability. A slot starts as a mean over its decisions.
        history_limit: the smallest step of a history's probability.
        left_out: experts that say nothing, by their name in EXPERTS.

    Raises:
        ConfigError: a value is outside its range, or there is no such expert.
    """

    vocab_size: int
    delay: int = 30_000
    rate: float = 0.015
    decay: float = 0.3
    start_weight: float = 0.05
    slot_limit: float = 1 / 256
    history_limit: float = 1 / 256
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vocab_size < 1 or self.delay < 0:
            raise ConfigError(
                f"vocab_size must be at least 1 and delay at least 0, not {self.vocab_size} and {self.delay}"
            )
        for name in self.left_out:
            if name not in EXPERTS:
                raise ConfigError(f"there is no expert {name!r}: choose among {', '.join(EXPERTS)}")


class ContextMixer:
    """A context-mixing model of characters, made by `fit`.

    Args:
        config: its settings.
        table: of the vocabulary's characters.
        counts: how often each character occurs in the training text, (V,).
        length: of the training text.
        functions: of mixing.py, compiled or not, by name.
    """

    def __init__(
        self,
        config: ContextMixingConfig,
        table: CharacterTable,
        counts: Sequence[int],
        length: int,
        functions: dict[str, Callable] | None = None,
    ) -> None:
        self.config, self.table = config, table
        self.tree = build_huffman_tree(counts)
        self.memory = create_memory(config.vocab_size, length, config.start_weight)
        self._place = create_place(config.left_out)
        plain: dict[str, Callable] = {"read_text": read_text, "predict_token": predict_token}
        self._functions = plain if functions is None else functions
        self._rates = Rates(config.rate, config.decay, config.slot_limit, config.history_limit)

    @classmethod
    def fit(
        cls,
        ids: Sequence[int] | ndarray,
        table: CharacterTable,
        config: ContextMixingConfig,
        functions: dict[str, Callable] | None = None,
    ) -> Self:
        """Learn from a text, in one pass.

        Args:
            ids: the token ids of the training text, (N,).
            table: of the vocabulary's characters.
            config: the settings.
            functions: the functions of this file, compiled (`acceleration.compile_context_mixing`); by default as
                they are.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        text = _to_valid_ids(ids, config.vocab_size)
        model = cls(config, table, np.bincount(text, minlength=config.vocab_size).tolist(), len(text), functions)
        model._read(text, True, min(config.delay, len(text) // 30))
        return model

    def token_losses(self, ids: Sequence[int] | ndarray) -> ndarray:
        """Return the loss of every token of a text, each predicted once from the tokens before it. Learn nothing.

        Args:
            ids: the token ids of the text, (N,).

        Returns:
            The losses in nats, (N,), float64. The first token has no context.
        """
        return self._read(_to_valid_ids(ids, self.config.vocab_size), False, 0)

    def learn(self, ids: Sequence[int] | ndarray) -> ndarray:
        """Read a text, and learn from each token after its prediction.

        Args:
            ids: the token ids of the text, (N,).

        Returns:
            The losses in nats, (N,), float64, of each token before it was learned from.
        """
        return self._read(_to_valid_ids(ids, self.config.vocab_size), True, 0)

    def log_probs(self, ids: Sequence[int] | ndarray) -> ndarray:
        """Return the log-probabilities (V,), float64, of every token after a text (N,)."""
        text = _to_valid_ids(ids, self.config.vocab_size)
        log_probs = np.zeros(self.config.vocab_size)
        predict_next = self._functions["predict_token"]
        predict_next(self.memory, self.tree, self.table, self._place, text, len(text), log_probs)
        return log_probs

    def generate(self, prompt: Sequence[int], max_new_tokens: int, seed: int = 0) -> list[int]:
        """Return a text that goes on after a prompt: each token is drawn from the model's probabilities.

        Args:
            prompt: token ids.
            max_new_tokens: the number of new tokens.
            seed: of the random numbers.

        Returns:
            The prompt and the new tokens.
        """
        rng = np.random.default_rng(seed)
        ids = list(prompt)
        for _ in range(max_new_tokens):
            p = np.exp(self.log_probs(ids[-GENERATION_CONTEXT:]))
            ids.append(int(rng.choice(self.config.vocab_size, p=p / p.sum())))
        return ids

    def _read(self, ids: ndarray, learns: bool, delay: int) -> ndarray:
        """Call `read_text`, with enough space in the memory's text."""
        if learns:
            space = np.zeros(len(ids), dtype=np.int32)
            self.memory = self.memory._replace(text=np.append(self.memory.text[: self.memory.position[COUNTED]], space))
        losses = np.empty(len(ids))
        self._place.match[:] = 0
        read = self._functions["read_text"]
        read(self.memory, self.tree, self.table, self._place, ids, learns, delay, self._rates, losses)
        return losses


def _to_valid_ids(ids: Sequence[int] | ndarray, vocab_size: int) -> ndarray:
    """Return the ids as an int32 array (N,); raise DataError if one is outside the vocabulary."""
    array = np.asarray(ids, dtype=np.int64)
    if len(array) and not 0 <= array.min() <= array.max() < vocab_size:
        raise DataError(f"ids run from {array.min()} to {array.max()}: they must lie in 0 to {vocab_size - 1}")
    return array.astype(np.int32)
