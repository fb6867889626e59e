"""The list of the exercises. It is light: the exercises themselves are imported when they are needed."""

import importlib
from dataclasses import dataclass

from minigpt.errors import ConfigError
from minigpt.learn.exercise import Exercise


@dataclass(frozen=True)
class Entry:
    """A line of the list.

    Attributes:
        number: from 1.
        name: what the learner's file and the file in `learn/exercises/` are named after.
        title: the exercise in a few words.
        defines: the functions and classes that the learner writes.
    """

    number: int
    name: str
    title: str
    defines: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """The name of the learner's file."""
        return f"{self.number:02}_{self.name}.py"

    @property
    def has_trial(self) -> bool:
        """True if the exercise passes only after a long trial on a text."""
        return self.name == "train_gpt"


_ROWS = (
    ("vocabulary", "Vocabulary, encode and decode", "build_vocabulary encode decode"),
    ("batches", "Split the text, and cut batches", "split_ids get_batch"),
    ("bigram", "Bigram logits, and the loss by hand", "look_up_logits compute_next_token_loss"),
    ("training_step", "One step of training", "train_step"),
    ("sample_token", "Sample one token", "sample_token"),
    (
        "average",
        "The average of the past, four ways",
        "average_by_loop average_by_matrix average_by_softmax weigh_by_scores",
    ),
    ("head", "One head of self-attention", "Head"),
    ("scale", "Why the scores are scaled", "compute_scaled_scores measure_sharpness"),
    ("multi_head", "Multi-head attention", "MultiHeadAttention"),
    ("feed_forward", "Feed-forward", "FeedForward"),
    ("block", "Residual connections and layer norm", "Block"),
    ("positions", "Embeddings of tokens and positions", "embed"),
    ("gpt", "The whole GPT", "GPTLanguageModel"),
    ("generate", "Generate text with a limited context", "append_sampled_tokens"),
    ("filters", "Temperature, top-k and top-p", "apply_temperature keep_top_k keep_top_p"),
    ("estimate_loss", "Estimate the loss", "estimate_loss"),
    ("kv_cache", "The KV cache", "append_to_cache attend_to_cache"),
    ("bpe_merge", "BPE: count pairs and merge one", "count_pairs merge_pair"),
    ("bpe_training", "BPE: learn the merges", "learn_merges"),
    ("lora", "LoRA", "LoRALinear"),
    ("nf4", "NF4: four bits for a weight", "quantize dequantize"),
    (
        "kneser_ney",
        "Modified Kneser-Ney, for the brave",
        "compute_discounts discount_counts compute_probabilities",
    ),
    ("train_gpt", "Train your own GPT", "train_gpt"),
)
ENTRIES = tuple(
    Entry(number, name, title, tuple(defines.split())) for number, (name, title, defines) in enumerate(_ROWS, 1)
)


def get_entry(number: int) -> Entry:
    """Return an exercise's line of the list. Raise ConfigError if there is no such exercise."""
    if not 1 <= number <= len(ENTRIES):
        raise ConfigError(f"there is no exercise {number}: they run from 1 to {len(ENTRIES)}")
    return ENTRIES[number - 1]


def find_definition(name: str) -> Entry:
    """Return the exercise in which the learner writes a function or class."""
    return next(entry for entry in ENTRIES if name in entry.defines)


def load_exercise(entry: Entry) -> Exercise:
    """Import an exercise."""
    return importlib.import_module(f"minigpt.learn.exercises.{entry.name}").EXERCISE
