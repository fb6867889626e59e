"""What a run is: three small frozen dataclasses, and TOML in and out.

Every setting is written once, here: the command line's flags, the TOML file's keys and the keyword
arguments of `minigpt.train` all come from these fields and their help texts. An impossible value is
refused on construction, so a configuration that exists can be trusted.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import tomli_w

from minigpt.config_fields import ValidatedSettings, format_value, require_known, setting
from minigpt.errors import ConfigError, suggest_name
from minigpt.presets import PRESETS

MOST_EVALUATIONS = 50_000  # that a run keeps a line of
MOST_HEADS, MOST_BLOCKS = 256, 512  # more than anyone trains here: a config must not keep Python busy for hours
MOST_MODULES = 2**12  # heads of the lecture's model in all its blocks, each of which is a module
LARGEST_TOML, LONGEST_LINE = 2**16, 1000  # characters; a key of many parts takes their square of time and memory
TokenizerKind: TypeAlias = Literal["char", "bpe", "sentencepiece", "gpt2"]
DEFAULT_VOCAB_SIZE = 1024  # of a tokenizer to be learned, where none is asked for


@dataclass(frozen=True)
class ModelConfig(ValidatedSettings):
    """The shape of a model. The defaults are the lecture's.

    Raises ConfigError if a value is impossible, n_embd not divisible by n_head included.
    """

    architecture: Literal["gpt", "modern", "bigram"] = setting("gpt", "a transformer, a modern one, or the baseline")
    vocab_size: int = setting(65, "how many different tokens there are; of characters, the text decides", at_least=1)
    block_size: int = setting(32, "how many tokens of context the model sees", at_least=1)
    n_embd: int = setting(64, "width: numbers that stand for each token inside the model", at_least=1)
    n_head: int = setting(4, "attention heads in each block; divides n_embd", at_least=1, at_most=MOST_HEADS)
    n_layer: int = setting(4, "blocks on top of one another", at_least=1, at_most=MOST_BLOCKS)
    dropout: float = setting(0.0, "share of activations dropped in training", at_least=0, below=1)
    implementation: Literal["fast", "lecture"] = setting("fast", "model/gpt.py to run, or model/lecture.py to read")
    activation: Literal["relu", "gelu"] = setting("relu", "feed-forward's nonlinearity; GPT-2 has gelu")
    qkv_bias: bool = setting(False, "a bias on queries, keys and values, as GPT-2 has")
    tied_head: bool = setting(False, "the token embedding as the last layer too, as GPT-2 has")
    quantization: Literal["none", "int8", "nf4"] = setting("none", "few bits for matrices, by minigpt quantize")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd must be divisible by n_head, and {self.n_embd} is not by {self.n_head}")
        if self.architecture == "modern" and (self.implementation == "lecture" or not self.is_lecture):
            raise ConfigError("the modern network has no implementation, activation, qkv_bias or tied_head: drop them")
        if self.architecture == "modern" and self.n_embd // self.n_head % 2:
            odd = f"{self.n_embd} for {self.n_head} heads is {self.n_embd // self.n_head} for each"
            raise ConfigError(
                f"the modern network turns numbers in pairs, and an n_embd of {odd}: choose an even number"
            )
        if self.implementation == "lecture" and not self.is_lecture:
            raise ConfigError("the lecture's implementation has no activation, qkv_bias or tied_head: drop them")
        heads = self.n_head * self.n_layer
        if self.implementation == "lecture" and heads > MOST_MODULES:
            raise ConfigError(
                f"the lecture's implementation has {MOST_MODULES:,} heads at most, not {heads:,}: use fast"
            )

    @property
    def is_lecture(self) -> bool:
        """Whether the GPT is the lecture's function, without any of GPT-2's parts."""
        return self.activation == "relu" and not self.qkv_bias and not self.tied_head


@dataclass(frozen=True)
class TrainingConfig(ValidatedSettings):
    """How a model is trained. The defaults are the lecture's."""

    tokenizer: TokenizerKind = setting("char", "what text is cut into; or the file, or the run, of a tokenizer")
    batch_size: int = setting(16, "windows of text in each step", at_least=1)
    order: Literal["random", "epochs"] = setting("random", "windows drawn at random, or each once before any again")
    max_iters: int = setting(5000, "steps of training", at_least=1)
    max_minutes: float | None = setting(
        None, "as many steps as take so long here, by timing some", above=0, at_most=1e6
    )
    eval_interval: int = setting(100, "steps between two evaluations", at_least=1)
    eval_windows: int = setting(128, "windows of each split that an evaluation reads", at_least=1)
    snapshots: int = setting(
        12, "texts kept on the way, at steps spread evenly on a log scale", at_least=0, at_most=1000
    )
    optimizer: Literal["adamw", "muon"] = setting(
        "adamw", "AdamW; or Muon for the blocks' matrices, AdamW for the rest"
    )
    learning_rate: float = setting(1e-3, "step size of AdamW", above=0, at_most=1e30)
    muon_learning_rate: float = setting(0.02, "step size of Muon", above=0, at_most=1e30)
    schedule: Literal["constant", "linear", "cosine", "trapezoid"] = setting(
        "constant", "how the learning rate falls, to min_learning_rate; trapezoid: in the second half, in a line"
    )
    schedule_start: int = setting(0, "the step at which the schedule begins", at_least=0)
    schedule_end: int = setting(0, "the step from which on it stays where it is; 0 is the last", at_least=0)
    min_learning_rate: float = setting(0.0, "AdamW's step size that the schedule falls to", at_least=0)
    warmup_iters: int = setting(0, "steps in which the learning rate rises to its value", at_least=0)
    weight_decay: float = setting(0.01, "pull of matrices towards 0; biases and norms have none", at_least=0)
    beta2: float = setting(0.999, "how long AdamW remembers squared gradients", at_least=0, below=1)
    grad_clip: float = setting(0.0, "norm that the gradient is cut to; 0 leaves it", at_least=0)
    gradient_accumulation: int = setting(1, "batches whose gradients make one step", at_least=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "fp32", "what matrix products compute in; auto: bf16 where the device has it, else fp32"
    )
    checkpoint_activations: bool = setting(False, "compute activations again in backward: less memory, more time")
    compile: bool = setting(False, "compile the model first: it takes a while, and steps may be faster")
    train_fraction: float = setting(0.9, "share of the text to train on; the rest validates", above=0, below=1)
    seed: int = setting(1337, "seed of weights, batches, dropout and samples", at_least=0, at_most=2**63 - 1)
    patience: int = setting(0, "evaluations without a better one after which to stop; 0 never does", at_least=0)
    on_spike: Literal["stop", "rollback"] = setting("stop", "if the loss jumps: stop, or go back once and on")
    save_minutes: float = setting(10.0, "minutes between saves, beside those at evaluations", above=0)
    parallel: Literal["ddp", "fsdp"] = setting("ddp", "of several processes each has the whole model, or a part of it")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to train; auto takes a GPU if there is one")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_learning_rate > self.learning_rate:
            rates = f"{self.min_learning_rate:g} is above {self.learning_rate:g}"
            raise ConfigError(f"min_learning_rate must be at most learning_rate, and {rates}: lower it")
        if self.max_minutes is not None:
            if self.schedule_start or self.schedule_end:
                raise ConfigError("a budget of time has a whole schedule: leave out schedule_start and schedule_end")
            return  # max_iters will be another
        if self.max_iters // self.eval_interval > MOST_EVALUATIONS:
            raise ConfigError(
                f"{self.max_iters:,} steps with an evaluation every {self.eval_interval:,} are more evaluations than "
                f"{MOST_EVALUATIONS:,}: raise eval_interval"
            )
        scheduled = (self.schedule_end or self.max_iters) - self.schedule_start
        if self.warmup_iters >= scheduled:
            few = f"{scheduled:,}: lower it, or train longer"
            raise ConfigError(f"warmup_iters must be below max_iters, and {self.warmup_iters:,} is not below {few}")


@dataclass(frozen=True)
class SamplingConfig(ValidatedSettings):
    """How the next token is chosen, and how many of them."""

    max_new_tokens: int = setting(500, "tokens to write", at_least=1)
    temperature: float = setting(1.0, "below 1 plays safe, above 1 dares; 0 takes the likeliest", at_least=0)
    top_k: int | None = setting(None, "choose among the k likeliest tokens only", at_least=1)
    top_p: float | None = setting(None, "choose among the likeliest that make up this probability", above=0, at_most=1)
    seed: int | None = setting(None, "seed, to get the same text again", at_least=0, at_most=2**63 - 1)


FIRST_VERSION: dict[str, Any] = {  # what runs had before these were settings
    "implementation": "lecture",
    "activation": "relu",
    "qkv_bias": False,
    "tied_head": False,
    "schedule": "constant",
    "warmup_iters": 0,
    "weight_decay": 0.01,
    "grad_clip": 0.0,
    "gradient_accumulation": 1,
    "precision": "fp32",
    "checkpoint_activations": False,
    "compile": False,
}
YOUNGER = {  # settings that came later still
    "tokenizer": "char",
    "order": "random",
    "quantization": "none",
    "schedule_start": 0,
    "schedule_end": 0,
    "save_minutes": 10.0,
    "patience": 0,
    "on_spike": "stop",
    "parallel": "ddp",
    "optimizer": "adamw",
    "muon_learning_rate": 0.02,
    "min_learning_rate": 0.0,
    "beta2": 0.999,
    "max_minutes": None,
}


@dataclass(frozen=True)
class Config:
    """A run's whole configuration: which preset it began from, the model and the training."""

    preset: str = "lecture"
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        if self.training.checkpoint_activations and self.model.architecture == "bigram":
            raise ConfigError("checkpoint_activations needs a model with blocks, and the bigram has none: leave it out")
        if self.training.optimizer == "muon" and self.training.precision == "fp16":
            raise ConfigError("muon does not go with fp16, whose losses are scaled: choose --precision bf16 or fp32")
        if self.training.optimizer == "muon" and self.model.architecture == "bigram":
            raise ConfigError("muon is for the matrices of blocks, and the bigram has none: choose --optimizer adamw")

    @property
    def tokens_per_step(self) -> int:
        """How many tokens a training step reads."""
        return self.training.gradient_accumulation * self.training.batch_size * self.model.block_size

    @property
    def activations_per_batch(self) -> int:
        """How many numbers the activations of a batch are: n_embd at each position."""
        return self.training.batch_size * self.model.block_size * self.model.n_embd

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """The preset of that name; ConfigError with the nearest right name if there is none."""
        if name not in PRESETS:
            raise ConfigError(
                f"there is no preset '{name}': choose from {', '.join(PRESETS)}{suggest_name(name, PRESETS)}"
            )
        return cls(preset=name).override(**PRESETS[name].settings)

    def override(self, **settings: Any) -> Self:
        """A copy with the named settings changed, of the model or of the training alike.

        A tokenizer to be learned brings a vocab_size along, if none is named. Raises ConfigError for a name that is
        no setting (with the nearest that is) or a value it can't have.
        """
        require_known(settings, ModelConfig.names() + TrainingConfig.names())
        if settings.get("tokenizer") in ("bpe", "sentencepiece") and self.training.tokenizer == "char":
            settings.setdefault("vocab_size", DEFAULT_VOCAB_SIZE)
        model = {name: settings[name] for name in ModelConfig.names() if name in settings}
        training = {name: settings[name] for name in TrainingConfig.names() if name in settings}
        if "max_iters" in training:  # a training of another length has the whole schedule, unless that is said too
            training = {"schedule_start": 0, "schedule_end": 0, "max_minutes": None} | training
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, **model),
            training=dataclasses.replace(self.training, **training),
        )

    @classmethod
    def from_toml(cls, text: str, preset: str | None = None, complete: bool = False) -> Self:
        """Read TOML: an optional `preset`, and settings under [model], [training] or neither.

        Settings the text leaves out are the preset's, which may be named in the text or by `preset`.
        Raises ConfigError for what is not TOML, two presets, an unknown name, an impossible value, or, if
        it has to be `complete`, a setting left out.
        """
        if len(text) > LARGEST_TOML or any(len(line) > LONGEST_LINE for line in text.split("\n")):
            most = f"{LARGEST_TOML:,} characters, {LONGEST_LINE:,} in a line"
            raise ConfigError(f"not TOML of settings, which has at most {most}: shorten it")
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not TOML: {error}") from None
        named = content.pop("preset", preset or "lecture")
        named = named if isinstance(named, str) else format_value(named)
        if preset and preset != named:
            raise ConfigError(
                f"it begins with the preset '{named}', so '{preset}' cannot be asked for as well: drop one"
            )
        sections = {"model": ModelConfig.names(), "training": TrainingConfig.names()}
        settings: dict[str, Any] = {}
        for section, names in sections.items():
            table = content.pop(section, {})
            if not isinstance(table, Mapping):
                raise ConfigError(f"'{section}' must be a table of settings, not {format_value(table)}")
            for name, value in table.items():
                if name not in names:
                    raise ConfigError(f"there is no setting '{name}' under [{section}]{suggest_name(name, names)}")
                settings[name] = value
        for name in content:
            if isinstance(content[name], Mapping):
                hint = suggest_name(name, sections) or ": known are [model] and [training]"
                raise ConfigError(f"there is no table [{name}]{hint}")
        settings |= content
        if complete and "implementation" not in settings:
            settings = FIRST_VERSION | settings
        if complete:
            settings = YOUNGER | settings
        missing = [name for names in sections.values() for name in names if name not in settings]
        if complete and missing:
            raise ConfigError(f"the setting '{missing[0]}' is missing")
        return cls.from_preset(named).override(**settings)

    def to_toml(self) -> str:
        """The TOML that `from_toml` reads back to an equal configuration; what is None, it leaves out."""
        content = dataclasses.asdict(self)
        content["training"] = {name: value for name, value in content["training"].items() if value is not None}
        return tomli_w.dumps(content)


def find_largest_preset(most: int) -> str | None:
    """The preset with the largest block_size that is at most that, if there is one."""
    sizes = {name: Config.from_preset(name).model.block_size for name in PRESETS}
    return max((name for name in sizes if sizes[name] <= most), key=sizes.__getitem__, default=None)
