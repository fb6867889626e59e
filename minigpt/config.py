"""The settings of a run: frozen dataclasses for model, training and sampling, and their TOML.

Each setting is written once, here. The command line's flags, the keys of a TOML file and the keyword arguments of
`minigpt.train` all come from these fields and their help texts. A wrong value is refused when the dataclass is made,
so every configuration that exists is valid.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import tomli_w

from minigpt.config_fields import (
    ValidatedSettings,
    format_value,
    make_html_table,
    require_encoding,
    require_known,
    setting,
)
from minigpt.config_toml import flatten_tables, parse_toml, require_complete
from minigpt.errors import ConfigError, suggest_name
from minigpt.presets import PRESETS

MAX_EVALUATIONS = 50_000  # a run keeps a line for each
MAX_HEADS, MAX_BLOCKS = 256, 512  # far above any model here: an untrusted config must not keep Python busy for hours
MAX_LECTURE_HEADS = 2**12  # each head of the lecture's model is a module
UNSETTABLE = ("quantization", "schedule_start", "schedule_end")  # `minigpt quantize` and resume set them
CHANGEABLE = (  # settings that a resumed run may change
    "max_iters",
    "eval_interval",
    "eval_windows",
    "save_minutes",
    "patience",
    "on_spike",
    "device",
    "threads",
    "compile",
    "checkpoint_activations",
    "parallel",
    "log_to",
)
DEFAULT_VOCAB_SIZE = 1024  # tokens of a tokenizer that is trained
TokenizerKind: TypeAlias = Literal["char", "bpe", "sentencepiece", "gpt2"]
Newlines: TypeAlias = Literal["keep", "unix"]
Errors: TypeAlias = Literal["strict", "replace"]
DataPath: TypeAlias = str | Path | Sequence[str | Path] | None  # where the text is; None: the default text


@dataclass(frozen=True, repr=False)
class ModelConfig(ValidatedSettings):
    """The shape of a model. The defaults are the lecture's.

    Raises:
        ConfigError: a value is not allowed, or two values do not fit together.
    """

    architecture: Literal["gpt", "modern", "bigram"] = setting(
        "gpt",
        "gpt: the lecture's transformer; modern: a newer transformer with rotary embedding and RMS norm "
        "(docs/record.md); bigram: a table of which token follows which",
    )
    vocab_size: int = setting(65, "number of different tokens; for characters, the text decides", at_least=1)
    block_size: int = setting(32, "tokens of context that the model sees", at_least=1)
    n_embd: int = setting(64, "width of the model: numbers for each token", at_least=1)
    n_head: int = setting(4, "attention heads in each block; divides n_embd", at_least=1, at_most=MAX_HEADS)
    n_layer: int = setting(4, "number of blocks", at_least=1, at_most=MAX_BLOCKS)
    dropout: float = setting(0.0, "share of activations set to zero in training", at_least=0, below=1)
    implementation: Literal["fast", "lecture"] = setting("fast", "fast: model/gpt.py; lecture: model/lecture.py")
    activation: Literal["relu", "gelu", "gelu_exact"] = setting(
        "relu", "nonlinearity of the feed-forward layer; GPT-2 has gelu, an approximation; nanoGPT has gelu_exact"
    )
    qkv_bias: bool = setting(False, "add a bias to queries, keys and values, as GPT-2 does")
    tied_head: bool = setting(False, "use the token embedding as the last layer too, as GPT-2 does")
    quantization: Literal["none", "int8", "nf4"] = setting("none", "format of the matrices, set by minigpt quantize")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % self.n_head:
            sizes = f"{self.n_embd} is not divisible by {self.n_head}"
            raise ConfigError(f"n_embd must be divisible by n_head, but {sizes}: change one of them")
        if self.architecture == "modern":
            self._validate_modern()
        elif self.implementation == "lecture":
            self._validate_lecture()

    def _validate_modern(self) -> None:
        if self.implementation == "lecture" or not self.is_lecture:
            raise ConfigError(
                "the modern architecture has no implementation, activation, qkv_bias or tied_head: leave them out"
            )
        head_size = self.n_embd // self.n_head
        if head_size % 2:  # the rotary embedding rotates pairs of numbers
            raise ConfigError(
                "the modern architecture needs an even n_embd / n_head, but "
                f"{self.n_embd} / {self.n_head} is {head_size}: change one of them"
            )

    def _validate_lecture(self) -> None:
        if not self.is_lecture:
            raise ConfigError("the lecture's implementation has no activation, qkv_bias or tied_head: leave them out")
        heads = self.n_head * self.n_layer
        if heads > MAX_LECTURE_HEADS:
            raise ConfigError(
                f"the lecture's implementation has {MAX_LECTURE_HEADS:,} heads at most, not {heads:,}: use fast"
            )

    @property
    def is_lecture(self) -> bool:
        """True if the GPT computes the lecture's function, without GPT-2's additions."""
        return self.activation == "relu" and not self.qkv_bias and not self.tied_head


@dataclass(frozen=True, repr=False)
class TrainingConfig(ValidatedSettings):
    """How a model is trained. The defaults are the lecture's.

    Raises:
        ConfigError: a value is not allowed, or two values do not fit together.
    """

    tokenizer: TokenizerKind = setting(
        "char", "kind of tokenizer, or a tokenizer file, or a run whose tokenizer to use"
    )
    batch_size: int = setting(16, "windows of text in a batch", at_least=1)
    order: Literal["random", "epochs"] = setting(
        "random", "random: draw windows at random; epochs: read each window once before any repeats"
    )
    max_iters: int = setting(5000, "number of training steps", at_least=1)
    max_minutes: float | None = setting(
        None, "train for about this time: a few timed steps decide max_iters", above=0, at_most=1e6
    )
    eval_interval: int = setting(100, "steps between two evaluations", at_least=1)
    eval_windows: int = setting(128, "windows of each split that an evaluation reads", at_least=1)
    snapshots: int = setting(
        12,
        "sample texts to keep during training, at steps even on a log scale; one for each 20 steps at most",
        at_least=0,
        at_most=1000,
    )
    optimizer: Literal["adamw", "muon"] = setting("adamw", "muon: Muon for the blocks' matrices, AdamW for the rest")
    learning_rate: float = setting(1e-3, "learning rate of AdamW", above=0, at_most=1e30)
    muon_learning_rate: float = setting(0.02, "learning rate of Muon", above=0, at_most=1e30)
    schedule: Literal["constant", "linear", "cosine", "trapezoid"] = setting(
        "constant", "how the learning rate decays; trapezoid: linearly, in the second half"
    )
    schedule_start: int = setting(0, "step at which the schedule begins", at_least=0)
    schedule_end: int = setting(0, "step at which the decay ends (0: max_iters)", at_least=0)
    min_learning_rate: float = setting(0.0, "learning rate of AdamW at the end of the decay", at_least=0)
    warmup_iters: int = setting(0, "steps in which the learning rate rises to its value", at_least=0)
    weight_decay: float = setting(0.01, "weight decay of matrices; biases and norms have none", at_least=0)
    beta2: float = setting(0.999, "decay of AdamW's average of squared gradients", at_least=0, below=1)
    grad_clip: float = setting(0.0, "largest norm of the gradient (0: no clipping)", at_least=0)
    gradient_accumulation: int = setting(1, "batches whose gradients make one step", at_least=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "fp32", "number format of matrix products; auto: bf16 if the device supports it, else fp32"
    )
    checkpoint_activations: bool = setting(False, "recompute activations in the backward pass: less memory, more time")
    compiled_loops: Literal["auto", "on", "off"] = setting(
        "auto", "train a small GPT on a CPU in loops compiled by Numba; auto: if that takes less time than it saves"
    )
    compile: bool = setting(False, "compile the model first: training starts later, and steps may be faster")
    train_fraction: float = setting(
        0.9, "share of the text to train on; the rest is the validation split", above=0, below=1
    )
    encoding: str = setting("utf-8", "encoding of the text file, such as utf-16, cp1252 or cp932")
    newlines: Newlines = setting("keep", "line ends of the text file; unix: read those of Windows as one character")
    errors: Errors = setting("strict", "bytes that are not text: refuse the file, or replace them by U+FFFD")
    seed: int = setting(1337, "seed of weights, batches, dropout and samples", at_least=0, at_most=2**63 - 1)
    patience: int = setting(
        0, "stop after this many evaluations without a lower validation loss (0: never)", at_least=0
    )
    on_spike: Literal["stop", "rollback"] = setting(
        "stop", "if the loss jumps and stays high: stop, or go back to the last checkpoint and skip the batch"
    )
    save_minutes: float = setting(10.0, "minutes between checkpoints, besides those at evaluations", above=0)
    parallel: Literal["ddp", "fsdp"] = setting("ddp", "ddp copies the model to every process; fsdp splits it")
    log_to: Literal["none", "tensorboard"] = setting(
        "none", "tensorboard: also write the metrics and samples for TensorBoard; pip install 'mini-gpt[tensorboard]'"
    )
    threads: int = setting(0, "CPU threads; 0: by the batch's size and the number of CPUs", at_least=0, at_most=1024)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to train; auto takes a GPU if there is one")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_encoding(self.encoding)
        if self.min_learning_rate > self.learning_rate:
            rates = f"{self.min_learning_rate:g} is above {self.learning_rate:g}"
            raise ConfigError(f"min_learning_rate must be at most learning_rate, but {rates}: lower it")
        if self.max_minutes is None:
            self._validate_steps()
        elif self.schedule_start or self.schedule_end:  # max_iters is not known yet
            raise ConfigError("max_minutes needs the whole schedule: leave out schedule_start and schedule_end")

    def _validate_steps(self) -> None:
        if self.max_iters // self.eval_interval > MAX_EVALUATIONS:
            raise ConfigError(
                f"{self.max_iters:,} steps with an evaluation every {self.eval_interval:,} are more than "
                f"{MAX_EVALUATIONS:,} evaluations: raise eval_interval"
            )
        scheduled = (self.schedule_end or self.max_iters) - self.schedule_start
        if self.warmup_iters >= scheduled:
            steps = f"{self.warmup_iters:,} is not below {scheduled:,}"
            raise ConfigError(f"warmup_iters must be below max_iters, but {steps}: lower it, or train longer")


@dataclass(frozen=True, repr=False)
class SamplingConfig(ValidatedSettings):
    """How the next token is chosen, and how many are written.

    Raises:
        ConfigError: a value is not allowed.
    """

    max_new_tokens: int = setting(500, "number of tokens to write", at_least=1)
    temperature: float = setting(1.0, "below 1 is safer, above 1 more varied; 0 takes the most likely", at_least=0)
    top_k: int | None = setting(None, "choose among the k most likely tokens only", at_least=1)
    top_p: float | None = setting(
        None, "choose among the most likely tokens of this total probability", above=0, at_most=1
    )
    seed: int | None = setting(None, "seed: the same one writes the same text", at_least=0, at_most=2**63 - 1)


@dataclass(frozen=True)
class Config:
    """A run's whole configuration.

    Attributes:
        preset: the name of the preset that the settings started from.
        model: the model's shape.
        training: how it is trained.

    Raises:
        ConfigError: model and training do not fit together.
    """

    preset: str = "lecture"
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        bigram, muon = self.model.architecture == "bigram", self.training.optimizer == "muon"
        if self.training.checkpoint_activations and bigram:
            raise ConfigError("checkpoint_activations needs a model with blocks, and the bigram has none: leave it out")
        if muon and self.training.precision == "fp16":
            raise ConfigError("muon does not work with fp16, which scales the loss: choose the precision bf16 or fp32")
        if muon and bigram:
            raise ConfigError("muon is for the matrices of blocks, and the bigram has none: choose the optimizer adamw")

    @property
    def tokens_per_step(self) -> int:
        """The number of tokens that a training step reads."""
        return self.training.gradient_accumulation * self.training.batch_size * self.model.block_size

    @property
    def activations_per_batch(self) -> int:
        """The size of a batch's activations (B, T, C)."""
        return self.training.batch_size * self.model.block_size * self.model.n_embd

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """Return the configuration of a preset. Raise ConfigError for an unknown name."""
        if name not in PRESETS:
            hint = f"choose from {', '.join(PRESETS)}{suggest_name(name, PRESETS)}"
            raise ConfigError(f"there is no preset '{name}': {hint}")
        return cls(preset=name).override(**PRESETS[name].settings)

    def override(self, **settings: Any) -> Self:
        """Return a copy with some settings changed.

        A new max_iters also resets the schedule's steps and max_minutes. A new tokenizer that must be trained also
        sets vocab_size to its default.

        Args:
            **settings: names of ModelConfig and TrainingConfig, and their values.

        Raises:
            ConfigError: a name is unknown, or a value is not allowed.
        """
        require_known(settings, ModelConfig.names() + TrainingConfig.names())
        if settings.get("tokenizer") in ("bpe", "sentencepiece") and self.training.tokenizer == "char":
            settings = {"vocab_size": DEFAULT_VOCAB_SIZE} | settings
        if "max_iters" in settings:
            settings = {"schedule_start": 0, "schedule_end": 0, "max_minutes": None} | settings
        model = {name: settings[name] for name in ModelConfig.names() if name in settings}
        training = {name: settings[name] for name in TrainingConfig.names() if name in settings}
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, **model),
            training=dataclasses.replace(self.training, **training),
        )

    @classmethod
    def from_toml(cls, text: str, preset: str | None = None, complete: bool = False) -> Self:
        """Read a configuration from TOML: `preset`, and settings under [model], [training] or no table.

        Args:
            text: the TOML.
            preset: the preset of the settings that the text leaves out, unless the text names it.
            complete: refuse a text that leaves out a setting.

        Raises:
            ConfigError: the text is not TOML, names another preset or an unknown setting, or has a wrong value.
        """
        content = parse_toml(text)
        name = content.pop("preset", preset or "lecture")
        name = name if isinstance(name, str) else format_value(name)
        if preset and preset != name:
            raise ConfigError(f"its preset is '{name}', so the preset cannot be '{preset}' as well: name one")
        settings = flatten_tables(content, {"model": ModelConfig, "training": TrainingConfig})
        if complete:
            require_complete(settings, (ModelConfig, TrainingConfig))
        return cls.from_preset(name).override(**settings)

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return make_html_table({"preset": self.preset, **vars(self.model), **vars(self.training)})

    def to_toml(self) -> str:
        """Return TOML that `from_toml` reads back. It leaves out a setting that is None."""
        content = dataclasses.asdict(self)
        content["training"] = {name: value for name, value in content["training"].items() if value is not None}
        return tomli_w.dumps(content)


def require_model_config(config: Any, model: str) -> ModelConfig:
    """Return the configuration of a model. Raise ConfigError for anything else, such as the size of a vocabulary."""
    if not isinstance(config, ModelConfig):
        example = f"{model}(ModelConfig(vocab_size=65))"
        raise ConfigError(f"{model} needs a ModelConfig, not {format_value(config)}: write {example}")
    return config


def find_largest_preset(max_block_size: int) -> str | None:
    """Return the preset with the largest block_size up to `max_block_size`, or None."""
    sizes = {name: Config.from_preset(name).model.block_size for name in PRESETS}
    return max((name for name in sizes if sizes[name] <= max_block_size), key=sizes.__getitem__, default=None)
