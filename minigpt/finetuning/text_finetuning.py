"""Fine-tune a run on another text: all of its weights, or an adapter only."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.config import Config, DataPath, ModelConfig
from minigpt.data.corpus import Corpus, find_data
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.data.text_format import TextFormat
from minigpt.errors import ConfigError
from minigpt.finetuning.lora import count_trained_parameters
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.method import Method, derive_config, prepare_model
from minigpt.finetuning.new_characters import extend_vocabulary
from minigpt.finetuning.replay import ReplayDataset
from minigpt.finetuning.run_finetuning import Finetuning, Resumption, choose_path, describe_failure, describe_finetuning
from minigpt.finetuning.target_layers import require_targets
from minigpt.finetuning.vocabulary_resize import resize_embeddings
from minigpt.model import TrainedModel
from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.run import Run
from minigpt.system.advice import format_setting
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.tokenizers.base import Tokenizer
from minigpt.training.callbacks import Callback
from minigpt.training.display import Display
from minigpt.training.setup import prepare_training


@dataclass(frozen=True)
class TextResult:
    """A fine-tuned run, and what it has learned and forgotten. Losses are exact, in nats per token.

    Attributes:
        run: an ordinary run; adapters are merged into its weights.
        trained_parameters: how many parameters trained.
        loss_before: the base's loss on the new text's validation split.
        loss_after: the fine-tuned run's.
        own_loss_before: the base's loss on the validation split of its own text; None if that text is missing.
        own_loss_after: the fine-tuned run's.
        adapter: the adapter's directory; None if all weights trained.
    """

    run: Run
    trained_parameters: int
    loss_before: float
    loss_after: float
    own_loss_before: float | None
    own_loss_after: float | None
    adapter: Path | None

    @property
    def problem(self) -> str | None:
        """A sentence that says that the new text was not learned; None if it was."""
        if self.loss_after < self.loss_before:
            return None
        change = f"from {self.loss_before:.4f} to {self.loss_after:.4f}"
        return describe_failure(self.run, f"the loss on the new text went {change}")


@use_pytorch_defaults()
def train_on_text(
    base: Run,
    data: DataPath | Corpus | PreparedData,
    method: Method = "lora",
    lora: LoRAConfig | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    resumption: Resumption | None = None,
    new_characters: str | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> TextResult:
    """Fine-tune a copy of a run's model on a text, and save it as a new run.

    Args:
        base: the run to start from; it stays as it is.
        data: a text file or prepared data, or either of them opened.
        method: "full" trains all weights. "lora" trains an adapter beside frozen weights. "qlora" does the same with
            the frozen weights in four bits.
        lora: the size and scaling of the adapters.
        targets: the layers that get an adapter, as for `apply_lora`.
        out: the new run's directory; runs/<name>-<method> by default.
        resumption: the run to resume, see `resume_finetuning`; the other arguments are those that it began with.
        new_characters: what to do with characters outside the base's vocabulary, see `extend_vocabulary`.
        callbacks: called during the training, after the built-in callbacks.
        **settings: settings of the training. The others are the base's, except the steps and the learning rate.

    Raises:
        ConfigError: an impossible setting or adapter.
        MinigptError: as `minigpt.train` does.
    """
    _require_trainable(base, method)
    config = resumption.config if resumption else derive_config(base, method, {}, **settings)
    lora = lora or LoRAConfig()
    corpus, tokenizer, old_ids = _open_text(base, data, config, new_characters)
    if method != "full":
        require_targets(base.model, targets, has_new_tokens=None in old_ids)
    resized = base.model
    if None in old_ids:
        resized = resize_embeddings(copy.deepcopy(base.model), old_ids, config.training.seed)

    def build_model(_: ModelConfig) -> TrainedModel:
        model = copy.deepcopy(resized)
        prepare_model(model, method, lora, targets, old_ids)
        return model

    with (
        Display(config.training) as display,
        prepare_training(config, corpus, display, tokenizer, build_model) as setup,
    ):
        _require_same_model(base.config, setup.config)
        trained_parameters = count_trained_parameters(setup.model)
        assert isinstance(setup.dataset, Dataset)
        before = ExactLoss.measure(resized, setup.dataset.val, tokenizer, "validation split", setup.corpus.source)
        described = describe_finetuning("text", base, method, lora, targets, resumption, new_characters=new_characters)
        finetuning = Finetuning(base, setup, described, display, old_ids, resumption)
        run, adapter = finetuning.train(finetuning.start(choose_path(base, out, method)), callbacks)
        own_text = ReplayDataset.from_run(base, old_ids, resumption.own_text if resumption else None)
        own_before, own_after = measure_forgetting(base, run, own_text)
        assert run.info.validation_loss is not None
        after = run.info.validation_loss
        result = TextResult(run, trained_parameters, before.loss, after, own_before, own_after, adapter)
        if result.problem:
            display.say(result.problem, "yellow")
    return result


def _require_trainable(base: Run, method: Method) -> None:
    """Raise ConfigError for a quantized base whose own weights would train."""
    if base.config.model.quantization != "none" and method == "full":
        raise ConfigError(
            f"a quantized run cannot be trained: fine-tune the original run, or add {format_setting('lora')}"
        )


def _open_text(
    base: Run, data: DataPath | Corpus | PreparedData, config: Config, new_characters: str | None
) -> tuple[Corpus | PreparedData, Tokenizer, list[int | None]]:
    """Return the text, a tokenizer that can encode it, and what each of its tokens is in the base, None for new ones.

    Say by how much the vocabulary grows. Errors are those of `train_on_text`.
    """
    with Display(config.training) as display:
        corpus = data
        if not isinstance(corpus, Corpus | PreparedData):
            corpus = find_data(corpus, display.say, TextFormat.from_settings(config.training))
        tokenizer, old_ids = extend_vocabulary(base, corpus, new_characters)
        if None in old_ids:
            size = f"from {base.tokenizer.vocab_size:,} to {tokenizer.vocab_size:,} tokens"
            display.say(f"tokens the vocabulary grows {size}")
    return corpus, tokenizer, old_ids


def measure_forgetting(base: Run, run: Run, own_text: ReplayDataset | None) -> tuple[float | None, float | None]:
    """Return the losses of the base and of the fine-tuned run on the base's own text; None if it is missing."""
    if own_text is None:
        return None, None
    return own_text.compute_base_loss(base.model), own_text.compute_loss(run.model)


def _require_same_model(base: Config, config: Config) -> None:
    """Raise ConfigError for a setting that would make it another model."""
    for name in ModelConfig.names():
        old, new = getattr(base.model, name), getattr(config.model, name)
        if name not in ("dropout", "quantization", "vocab_size") and old != new:
            raise ConfigError(f"{name} is {old} in the base, and cannot be changed: leave it out")
