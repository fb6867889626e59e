"""One fine-tuning of any kind: the directory of its run, what that says of it, and the training."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from minigpt.acceleration import accelerate, describe_decoder
from minigpt.config import Config, DataPath
from minigpt.distributed.sharded_checkpoint import load_into
from minigpt.errors import DataError
from minigpt.finetuning.adapter_files import compute_base_fingerprint, save_adapter
from minigpt.finetuning.lora import compute_merged_weights, count_trained_parameters, merge_and_unload
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.method import Method
from minigpt.finetuning.vocabulary_resize import find_moved_ids, save_new_tokens
from minigpt.model import count_parameters
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import FinetuningInfo, RunInfo
from minigpt.system.advice import format_setting
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import Checkpoint
from minigpt.training.display import Display
from minigpt.training.objective import Objective
from minigpt.training.resume import reopen_run_info
from minigpt.training.setup import TrainingSetup
from minigpt.training.train_run import create_run_info, train_run
from minigpt.training.training_state import get_trained_weights


@dataclasses.dataclass(frozen=True)
class Resumption:
    """A fine-tuned run that is resumed.

    Attributes:
        directory: the run's directory, locked by this process.
        run_info: what its run.json says.
        finetuning_info: how it is fine-tuned.
        config: its settings, with the changes for the rest of the training.
        checkpoint: what it resumes from.
        own_text: where the base's own text is; None for the recorded place.
    """

    directory: RunDirectory
    run_info: RunInfo
    finetuning_info: FinetuningInfo
    config: Config
    checkpoint: Checkpoint
    own_text: DataPath


def describe_finetuning(
    kind: Literal["text", "sft", "dpo"],
    base: Run,
    method: Method,
    lora: LoRAConfig,
    targets: Sequence[str] | None,
    resumption: Resumption | None,
    **fields: Any,
) -> FinetuningInfo:
    """Return how a run is fine-tuned, for finetuning.json. For a resumed run, return what that file says.

    Args:
        kind: what is learned.
        base: the run that is fine-tuned.
        method: what trains.
        lora: the size and scaling of the adapters.
        targets: the layers that get an adapter, as for `apply_lora`.
        resumption: what the run resumes from; None for a new run.
        **fields: more fields of finetuning.json.
    """
    if resumption:
        return resumption.finetuning_info
    return FinetuningInfo(
        kind=kind,
        method=method,
        base_sha256=compute_base_fingerprint(base.model),
        targets=None if targets is None else ",".join(targets),
        **dataclasses.asdict(lora),
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """One fine-tuning, from the directory of its run to the trained weights.

    Attributes:
        base: the run that is fine-tuned.
        setup: the data and the model, adapters included.
        finetuning_info: how the run is fine-tuned, see `describe_finetuning`.
        display: shows the progress.
        old_ids: what each token was in the base, None for a new one; empty if the vocabulary is the base's.
        resumption: what the run resumes from; None for a new run.
    """

    base: Run
    setup: TrainingSetup
    finetuning_info: FinetuningInfo
    display: Display
    old_ids: Sequence[int | None] = ()
    resumption: Resumption | None = None

    def start(self, path: Path, **fields: Any) -> Run:
        """Return the run before its next step: a new run, or a resumed one as it was at its checkpoint.

        Args:
            path: the directory of a new run; if it is taken, a number is added.
            **fields: more fields of a new run's run.json.

        Raises:
            DataError: the data are not those that the run was trained on.
            RunError: the checkpoint does not fit the model.
        """
        return self._reopen_run(self.resumption) if self.resumption else self._create_run(path, fields)

    def train(
        self, run: Run, callbacks: Sequence[Callback] = (), objective: Objective | None = None
    ) -> tuple[Run, Path | None]:
        """Train the run of `start`. At the end adapters are merged into its weights.

        Args:
            run: the run.
            callbacks: called after the built-in callbacks.
            objective: what the training minimizes; by default the loss of the next token.

        Returns:
            The trained run, and the directory of its adapter; None if all weights trained.
        """
        checkpoint = self.resumption.checkpoint if self.resumption else None
        options: dict[str, Any] = {"callbacks": callbacks, "objective": objective, "checkpoint": checkpoint}
        with nullcontext() if self.resumption else RunDirectory(run.path).lock():
            if self.finetuning_info.method == "full":
                return train_run(run, self.setup, self.display, **options), None
            return self._train_adapters(run, options)

    def _create_run(self, path: Path, fields: Mapping[str, Any]) -> Run:
        """Make the directory of a new run, and return the run."""
        directory, setup, method = RunDirectory.create(path), self.setup, self.finetuning_info.method
        trained = count_trained_parameters(setup.model)
        has_all_weights = method == "full" or None in self.old_ids
        info = dataclasses.replace(
            create_run_info(setup),
            parameters=count_parameters(setup.model if has_all_weights else self.base.model),
            trained_parameters=trained,
            base=str(self.base.path),
            generation=describe_decoder(self.base.model),
            **fields,
        )
        directory.write_config(setup.config)
        directory.write_info(info)
        directory.write_finetuning_info(self.finetuning_info)
        directory.write_tokenizer(setup.tokenizer, setup.config)
        share = f"{trained:,} of {info.parameters:,} parameters train"
        self.display.say(f"model  {self.base.path}, {method}: {share}\nrun    {directory.path}\n")
        return Run(directory.path, setup.config, setup.tokenizer, setup.model, info, [])

    def _reopen_run(self, resumption: Resumption) -> Run:
        """Give the model the checkpoint's weights, and return the run. Raise DataError and RunError as `start`."""
        directory, checkpoint, setup = resumption.directory, resumption.checkpoint, self.setup
        if setup.corpus.sha256 != resumption.run_info.data_sha256:
            raise DataError(
                f"{str(directory.path)!r} was trained on other data than {setup.corpus.source}: "
                f"name the original data with {format_setting('data')}"
            )
        load_into(get_trained_weights(setup.model), checkpoint.model)
        is_merged = self.finetuning_info.method != "full"
        weights = compute_merged_weights(setup.model) if is_merged else setup.model.state_dict()
        step = CheckpointDirectory(directory.path).restore_run(checkpoint, weights, is_merged)
        info = dataclasses.replace(reopen_run_info(resumption.run_info, setup, step), base=str(self.base.path))
        directory.write_config(setup.config)
        directory.write_info(info)
        self.display.say(f"model  {self.base.path}, {self.finetuning_info.method}")
        self.display.say(f"run    {directory.path}, resumed after step {checkpoint.metadata.step:,}\n")
        return Run(directory.path, setup.config, setup.tokenizer, setup.model, info, list(checkpoint.metrics))

    def _train_adapters(self, run: Run, options: Mapping[str, Any]) -> tuple[Run, Path]:
        """Train the adapters of a run, and merge them. The options are those of `train_run`."""
        adapter, moved_ids = RunDirectory(run.path).adapter, find_moved_ids(self.old_ids)

        def save_and_merge() -> Mapping[str, Tensor]:
            """Save the adapter, and return the merged weights."""
            weights = compute_merged_weights(run.model)
            save_adapter(run.model, adapter, base_sha256=self.finetuning_info.base_sha256, moved_ids=moved_ids)
            if None in self.old_ids:
                save_new_tokens(adapter, weights, self.old_ids, run)
            return weights

        try:
            trained_run = train_run(run, self.setup, self.display, get_merged_weights=save_and_merge, **options)
        finally:
            merge_and_unload(self.setup.model)
            accelerate(self.setup.model, self.setup.config)
        return trained_run, adapter


def describe_failure(run: Run, problem: str) -> str:
    """Return a sentence that calls a run useless, says why, and what to try."""
    training = run.config.training
    steps = format_setting("max_iters", 2 * training.max_iters)
    higher, lower = (
        format_setting("learning_rate", float(f"{training.learning_rate * factor:.2g}")) for factor in (3, 1 / 3)
    )
    return f"this run is useless: {problem}; try {steps}, or {higher} or {lower}"


def choose_path(base: Run, out: str | Path | None, suffix: str) -> Path:
    """Return `out`, or by default runs/<name of the base>-<suffix>."""
    return Path(f"runs/{base.path.name or 'run'}-{suffix}" if out is None else out)
