"""The text on which an export is compared with the run that it came from."""

import torch
from torch import Tensor

from minigpt.config import SamplingConfig
from minigpt.errors import ExchangeError, MinigptError
from minigpt.generation.engine import generate
from minigpt.model.language_model import evaluation_mode, get_device
from minigpt.runs.run import Run

WINDOWS = 4
MAX_DIFFERENCE = 1e-2  # between two logits; what rounding makes is a hundred times less


def choose_check_ids(run: Run) -> Tensor:
    """Return token ids (B, T) of the run's validation split, or if its data are not here, ids that the model wrote."""
    T = run.config.model.block_size
    try:
        ids = torch.as_tensor(run.dataset().val[: WINDOWS * T]).long()
    except MinigptError:
        start = torch.tensor([run.encode_prompt("")], device=get_device(run.model))
        ids = generate(run.model, start, SamplingConfig(max_new_tokens=WINDOWS * T, seed=0))[0].cpu()
    rows = max(1, len(ids) // T)
    return ids[: rows * T].view(rows, -1)


def require_equal_logits(theirs: Tensor, run: Run, ids: Tensor, program: str) -> float:
    """Compare another program's logits with the run's.

    Args:
        theirs: the other program's logits for `ids`, (B, T, V), on the CPU.
        run: the run.
        ids: token ids (B, T).
        program: name of the program, for the message.

    Returns:
        The largest difference.

    Raises:
        ExchangeError: it is larger than rounding makes it.
    """
    with torch.inference_mode(), evaluation_mode(run.model):
        ours = run.model(ids.to(get_device(run.model)))[0].cpu()
    difference = (theirs - ours).abs().max().item()
    if not difference <= MAX_DIFFERENCE:
        raise ExchangeError(f"{program} computes other logits than the run: they differ by {difference:.3g}")
    return difference


def choose_check_text(run: Run, ids: Tensor) -> str:
    """Return the text of ids (T,), without special tokens, whose names are ordinary text to the run's tokenizer."""
    special = set(run.tokenizer.special_tokens.values())
    return run.tokenizer.decode(i for i in ids.tolist() if i not in special)
