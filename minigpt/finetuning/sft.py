"""Instruction tuning (supervised fine-tuning, SFT): train a run on instructions, and measure its answers."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.acceleration import accelerate
from minigpt.config import Config
from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.accuracy import Accuracy, compute_majority_baseline, measure_accuracy_by_task
from minigpt.finetuning.accuracy_log import AccuracyLog
from minigpt.finetuning.example_split import ExampleSplit, make_corpus, make_example_split, report_split
from minigpt.finetuning.lora import count_trained_parameters
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.method import Method, derive_config, limit_batch_threads, prepare_model
from minigpt.finetuning.replay import ReplayDataset
from minigpt.finetuning.run_finetuning import Finetuning, Resumption, choose_path, describe_failure, describe_finetuning
from minigpt.finetuning.sft_dataset import SFTDataset
from minigpt.finetuning.target_layers import require_targets
from minigpt.finetuning.tasks import TASKS
from minigpt.finetuning.text_finetuning import measure_forgetting
from minigpt.finetuning.vocabulary_resize import extend_tokenizer, resize_embeddings
from minigpt.model import TrainedModel
from minigpt.model.loss import IGNORE_INDEX, compute_mean_loss
from minigpt.model.loss_units import nats_to_bits
from minigpt.runs.exact_loss import ExactLoss, measure_token_lengths
from minigpt.runs.recorded_data import measure_data_files
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.advice import format_setting
from minigpt.system.device import pick_device
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.tokenizers.chat_format import CHAT_TOKENS, ChatTemplate
from minigpt.training.callbacks import Callback
from minigpt.training.display import Display
from minigpt.training.objective import Objective
from minigpt.training.setup import TrainingSetup

DEFAULTS = {"order": "epochs", "snapshots": 0}
SFT_RATES: dict[Method, float] = {"full": 2e-3, "lora": 5e-3, "qlora": 5e-3}  # learning rates for a model 64 wide
STEPS_PER_TASK: dict[Method, int] = {"full": 1500, "lora": 3000, "qlora": 3000}
MIN_TASKS = 2  # one task gets the steps of two
WARMUP = 100
EVAL_INTERVAL = 500
NARROW = 64  # n_embd of the lecture's model


@dataclass(frozen=True)
class TaskAccuracy:
    """The accuracy of held-out answers of a task.

    Attributes:
        before: the base's; None if it knew no instructions.
        after: the fine-tuned run's.
        majority: the accuracy of always giving the most frequent answer.
    """

    before: Accuracy | None
    after: Accuracy
    majority: Accuracy

    @property
    def is_better_than_majority(self) -> bool:
        """True if the difference is more than chance."""
        return self.after.interval[0] > self.majority.share


@dataclass(frozen=True)
class SFTResult:
    """A run that follows instructions, and how well it does.

    Attributes:
        run: an ordinary run; adapters are merged into its weights.
        trained_parameters: how many parameters trained.
        accuracies: by task.
        own_loss_before: the base's exact loss on its own text in nats per token; None if that text is missing.
        own_loss_after: the fine-tuned run's.
        truncated: how many examples were longer than block_size.
        adapter: the adapter's directory; None if all weights trained.
    """

    run: Run
    trained_parameters: int
    accuracies: dict[str, TaskAccuracy]
    own_loss_before: float | None
    own_loss_after: float | None
    truncated: int
    adapter: Path | None

    @property
    def problem(self) -> str | None:
        """A sentence that says that no built-in task was learned; None if one was."""
        found = {task: accuracy for task, accuracy in self.accuracies.items() if task in TASKS}
        if not found or any(accuracy.is_better_than_majority for accuracy in found.values()):
            return None
        return describe_failure(self.run, f"of {', '.join(found)} it knows no more than the most frequent answer")


class AnswerObjective(Objective):
    """The loss of the tokens of answers."""

    def __init__(self, setup: TrainingSetup, dataset: SFTDataset) -> None:
        super().__init__(setup)
        self.dataset = dataset

    def measure_exact_loss(self) -> ExactLoss:
        """Return the mean loss of all tokens of the held-out answers."""
        x, y = self.dataset.get_all("val")
        loss = compute_mean_loss(self.setup.model, x, y)
        answers = y[y != IGNORE_INDEX]
        size, characters = measure_token_lengths(self.setup.tokenizer)[answers].sum(0).tolist()
        count, source = len(answers), self.setup.corpus.source
        bits = nats_to_bits(loss) * count
        per_byte, per_character = bits / size if size else None, bits / characters if characters else None
        return ExactLoss(loss, per_byte, per_character, "held-out answers", characters, source, count, count)


@use_pytorch_defaults()
def train_sft(
    base: Run,
    data: str | Path | None = None,
    tasks: Sequence[str] = (),
    test_only: Sequence[str] = (),
    method: Method = "full",
    lora: LoRAConfig | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    resumption: Resumption | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> SFTResult:
    """Train a copy of a run's model on instructions and answers, and save it as a new run.

    The vocabulary grows by the chat format's special tokens, and by characters that only the examples have.

    Args:
        base: the run to start from; it stays as it is.
        data: a file of examples, see examples.py; None to make examples of `tasks`.
        tasks: names of built-in tasks, see tasks.py.
        test_only: tasks that are tested and never learned.
        method: as for `train_on_text`.
        lora: as for `train_on_text`.
        targets: as for `train_on_text`.
        out: the new run's directory; runs/<name>-instructed by default.
        resumption: as for `train_on_text`.
        callbacks: as for `train_on_text`.
        **settings: settings of the training. The others are the base's, except the steps, the learning rate and its
            schedule.

    Raises:
        DataError: the examples cannot be learned.
        ConfigError: an impossible setting, adapter or task.
        MinigptError: as `minigpt.train` does.
    """
    config = resumption.config if resumption else derive_sft_config(base, tasks, method, **settings)
    lora, own_text = lora or LoRAConfig(), resumption.own_text if resumption else None
    _require_transformer(base)
    split = make_example_split(base, data, tasks, test_only, config.training.seed, own_text)
    train, test = split.all_train, split.all_test
    texts = (turn.text for example in train + test for turn in example.turns)
    tokenizer, old_ids = extend_tokenizer(base.tokenizer, CHAT_TOKENS, texts)
    if method != "full":
        require_targets(base.model, targets, has_new_tokens=None in old_ids)
    config = config.override(vocab_size=tokenizer.vocab_size)
    template, replay = ChatTemplate(tokenizer), _find_replay(base, old_ids, resumption)
    dataset = SFTDataset(train, test, template, config, replay)
    before = {} if None in old_ids else measure_accuracy_by_task(base.model, template, split.test)
    with Display(config.training) as display, limit_batch_threads(config) as config:
        report_split(display.say, split.source, train, test, "examples")
        dataset.report_truncated(display.say, "examples")
        model = _build_model(base, config, method, lora, targets, old_ids)
        trained_parameters = count_trained_parameters(model)
        corpus = make_corpus(train + test, split.source)
        setup = TrainingSetup(corpus, tokenizer, config, dataset, model, config.training.threads)
        described_data = _describe_data(data, tasks, test_only, replays=replay is not None)
        finetuning_info = describe_finetuning("sft", base, method, lora, targets, resumption, **described_data)
        finetuning = Finetuning(base, setup, finetuning_info, display, old_ids, resumption)
        path = choose_path(base, out, "instructed")
        run, adapter = _train_answers(finetuning, path, split, template, dataset, callbacks)
        accuracies = _compare_accuracies(run.model, template, split, before)
        own_before, own_after = measure_forgetting(base, run, replay)
        result = SFTResult(run, trained_parameters, accuracies, own_before, own_after, dataset.truncated, adapter)
        if result.problem:
            display.say(result.problem, "yellow")
    return result


def _require_transformer(base: Run) -> None:
    """Raise ConfigError for a base that cannot learn instructions: a bigram, or a quantized model."""
    if base.config.model.quantization != "none" or base.config.model.architecture == "bigram":
        raise ConfigError("instructions need a transformer whose weights are in full precision: take another run")


def _build_model(
    base: Run,
    config: Config,
    method: Method,
    lora: LoRAConfig,
    targets: Sequence[str] | None,
    old_ids: Sequence[int | None],
) -> TrainedModel:
    """Return a copy of the base's model on the device, with rows for new tokens, prepared as the method needs."""
    torch.manual_seed(config.training.seed)
    model = resize_embeddings(copy.deepcopy(base.model), old_ids, config.training.seed)
    model = model.to(pick_device(config.training.device))
    accelerate(model, config)
    prepare_model(model, method, lora, targets, old_ids)
    return model


def _train_answers(
    finetuning: Finetuning,
    path: Path,
    split: ExampleSplit,
    template: ChatTemplate,
    dataset: SFTDataset,
    callbacks: Sequence[Callback],
) -> tuple[Run, Path | None]:
    """Start the run and train it, with the accuracy of each task at each evaluation. Return it, and its adapter."""
    exchanges = max(example.exchanges for example in split.all_train)
    run = finetuning.start(path, instructions=True, exchanges=exchanges, documents=None)
    setup, say = finetuning.setup, finetuning.display.say
    log = AccuracyLog(RunDirectory(run.path), setup.model, template, split.test, say)
    trained = finetuning.train(run, [log, *callbacks], AnswerObjective(setup, dataset))
    log.write_plot()
    return trained


def _describe_data(
    data: str | Path | None, tasks: Sequence[str], test_only: Sequence[str], replays: bool
) -> dict[str, Any]:
    """Return the fields of finetuning.json that say what is learned."""
    return {
        "data": data and str(data),
        "data_bytes": measure_data_files([data] if data else []),
        "tasks": ",".join(tasks) or None,
        "test_only": ",".join(test_only) or None,
        "replays": replays,
    }


def derive_sft_config(base: Run, tasks: Sequence[str], method: Method, **settings: Any) -> Config:
    """Return the configuration, whose defaults teach the tasks. Wider models take smaller steps."""
    defaults = {**DEFAULTS, "learning_rate": SFT_RATES[method] * min(1.0, NARROW / base.config.model.n_embd)}
    if tasks:
        defaults["max_iters"] = STEPS_PER_TASK[method] * max(MIN_TASKS, len(tasks))
        defaults["eval_interval"] = EVAL_INTERVAL
    if "schedule" not in settings:
        defaults["schedule"] = "cosine"
        defaults["warmup_iters"] = WARMUP
    return derive_config(base, method, defaults, **settings)


def _find_replay(base: Run, old_ids: Sequence[int | None], resumption: Resumption | None) -> ReplayDataset | None:
    """Return the base's own text, if it is there. Raise DataError if a resumed run needs it and it is not there."""
    if resumption is None:
        return ReplayDataset.from_run(base, old_ids)
    if not resumption.finetuning_info.replays:
        return None
    replay = ReplayDataset.from_run(base, old_ids, resumption.own_text)
    if replay is None:
        run = str(resumption.directory.path)
        raise DataError(
            f"{run!r} trains on the text of its base {str(base.path)!r} too, which is missing or has changed: "
            f"name it with {format_setting('data')}"
        )
    return replay


def _compare_accuracies(
    model: TrainedModel, template: ChatTemplate, split: ExampleSplit, before: dict[str, Accuracy]
) -> dict[str, TaskAccuracy]:
    """Measure the accuracy of each task, and put that of the base and of the most frequent answer beside it."""
    after = measure_accuracy_by_task(model, template, split.test)
    return {
        task: TaskAccuracy(
            before.get(task), after[task], compute_majority_baseline(split.train.get(task, examples), examples)
        )
        for task, examples in split.test.items()
    }
