"""Make a run of a model and a tokenizer that come from another program."""

from pathlib import Path

import torch

from minigpt.acceleration import describe_decoder
from minigpt.config import Config, TrainingConfig
from minigpt.model import TrainedModel, count_parameters
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import RunInfo, describe_environment
from minigpt.tokenizers.base import Tokenizer, compute_fingerprint, find_end_of_text
from minigpt.tokenizers.chat_format import CHAT_TOKENS


def write_imported_run(
    model: TrainedModel, tokenizer: Tokenizer, source: str | Path, out: str | Path | None = None
) -> Run:
    """Write a run that was trained elsewhere, and open it.

    Args:
        model: the model, on the CPU.
        tokenizer: its tokenizer, with as many tokens.
        source: where the model is from: a file, a folder or a name.
        out: the run's directory; runs/<name of the source> by default.

    Raises:
        FileError: the run cannot be written.
    """
    config = Config("lecture", model.config, TrainingConfig(tokenizer=tokenizer.kind))
    name = Path(source).stem if Path(source).is_file() else Path(source).name
    target = RunDirectory.create(Path(f"runs/{name or 'gpt2'}" if out is None else out))
    info = RunInfo(
        status="imported",
        data_source=f"unknown; the model is from {source}",
        data_characters=0,
        data_sha256="",
        parameters=count_parameters(model),
        device="cpu",
        threads=torch.get_num_threads(),
        tokenizer_sha256=compute_fingerprint(tokenizer),
        generation=describe_decoder(model),
        documents=find_end_of_text(tokenizer) is not None,
        instructions=True if all(name in tokenizer.special_tokens for name in CHAT_TOKENS) else None,
        **describe_environment(),
    )
    target.write_config(config)
    target.write_tokenizer(tokenizer, config)
    target.write_weights(model.state_dict())
    target.write_info(info)
    return Run.open(target.path)
