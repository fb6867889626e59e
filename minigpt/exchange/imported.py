"""A GPT-2 from elsewhere as a run, on which every command works."""

import datetime
import platform
from pathlib import Path

import torch

import minigpt
from minigpt.acceleration import describe_decoder
from minigpt.config import Config, TrainingConfig
from minigpt.errors import ExchangeError, FileError
from minigpt.exchange.huggingface import folder_of, load_gpt2
from minigpt.model import count_parameters
from minigpt.runs.run import Run
from minigpt.runs.run_directory import Record, RunFolder
from minigpt.tokenizers.char import end_of_text
from minigpt.tokenizers.loading import fingerprint, kind_of, load_tokenizer


def import_gpt2(source: str | Path, out: str | Path | None = None) -> Run:
    """The GPT-2, model and tokenizer, in a folder of transformers', or of that name on the hub, as a run folder.

    Raises ExchangeError for what is no GPT-2 or has no tokenizer that fits, and otherwise as `load_gpt2` does.
    """
    folder = folder_of(source)
    model = load_gpt2(folder)
    try:
        tokenizer = load_tokenizer(folder)
    except FileError as error:
        raise ExchangeError(f"{str(folder)!r} has no tokenizer that can be read: {error}") from None
    if tokenizer.vocab_size != model.config.vocab_size:
        sizes = f"{tokenizer.vocab_size:,} tokens, and the model knows {model.config.vocab_size:,}"
        raise ExchangeError(f"the tokenizer in {str(folder)!r} does not fit: it has {sizes}")
    config = Config("lecture", model.config, TrainingConfig(tokenizer=kind_of(tokenizer)))
    target = RunFolder.create(Path(f"runs/{Path(source).name or 'gpt2'}" if out is None else out))
    record = Record(
        status="imported",
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data_source=f"unknown; the model is from {source}",
        data_characters=0,
        data_sha256="",
        parameters=count_parameters(model),
        device="cpu",
        threads=torch.get_num_threads(),
        minigpt_version=minigpt.__version__,
        torch_version=torch.__version__,
        python_version=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        tokenizer_sha256=fingerprint(tokenizer),
        generation=describe_decoder(model),
        documents=end_of_text(tokenizer) is not None,
    )
    target.write_config(config)
    target.write_tokenizer(tokenizer, config)
    target.save_weights(model.state_dict(), best_so_far=True)
    target.write_record(record)
    return Run.open(target.path)
