"""The adapter of a fine-tuned run beside its export, for PEFT."""

from pathlib import Path

from minigpt.errors import ExchangeError
from minigpt.finetuning.adapter_config import CONFIG
from minigpt.finetuning.adapter_files import WEIGHTS
from minigpt.finetuning.peft_names import PREFIX
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.files import explain_os_errors, read_bytes, require_inside, write_atomic
from minigpt.system.safetensors_files import open_safetensors

ADAPTER = "adapter"
_BLOCKS = f"{PREFIX}transformer.h."
_MAX_BYTES = 2**31


def copy_adapter(run: Run, folder: Path) -> bool:
    """Copy a run's adapter into the folder of its export, unless it does not fit the export of the base.

    An export moves the bias of the last layer into other weights, and can add a token. So an adapter fits only if all
    of its weights are those of blocks.

    Returns:
        True if the adapter was copied.

    Raises:
        FileError: a file cannot be read or written.
    """
    source = RunDirectory(run.path).adapter
    files = [source / CONFIG, source / WEIGHTS]
    if not all(file.is_file() for file in files):
        return False
    require_inside(run.path, files)
    with open_safetensors(files[1], ExchangeError) as tensors:
        if not all(name.startswith(_BLOCKS) for name in tensors.keys()):  # noqa: SIM118 (the handle is not a dict)
            return False
    with explain_os_errors("create the folder", folder / ADAPTER):
        (folder / ADAPTER).mkdir()
    for file in files:
        write_atomic(folder / ADAPTER / file.name, read_bytes(file, _MAX_BYTES))
    return True
