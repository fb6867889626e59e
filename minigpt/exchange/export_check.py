"""Compare the logits of an export with those of its run."""

from dataclasses import dataclass
from sys import float_info

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import SamplingConfig
from minigpt.errors import ExchangeError, MinigptError
from minigpt.generation.engine import generate
from minigpt.model.language_model import evaluation_mode, get_device
from minigpt.runs.run import Run

WINDOWS = 4
WRITTEN_TOKENS = 1024  # of a run without data, or WINDOWS of them: writing is slow
TOKENS_FOR_LOSS = 4096  # so that the loss of a quantized export is not that of a few words
MAX_DIFFERENCE = 1e-2  # between two logits; rounding gives at most about 1e-4
FEWER_BITS = float_info.max  # the tolerance of a quantized export: its error is measured and printed


@dataclass(frozen=True)
class LogitComparison:
    """How an export differs from its run.

    Attributes:
        program: the program that computed the export's logits.
        difference: the largest difference of two logits.
        run_loss: the run's loss on the compared tokens in nats per token; None if a window is a single token.
        export_loss: the export's loss on the same tokens.
    """

    program: str
    difference: float
    run_loss: float | None
    export_loss: float | None


def choose_check_ids(run: Run, tokens: int = 0) -> Tensor:
    """Return token ids (B, T) of the run's validation split, or if its data are not here, ids that the model wrote.

    Args:
        run: the run.
        tokens: how many at least, where there are as many; a few windows by default.
    """
    T = run.config.model.block_size
    count = max(WINDOWS, -(-tokens // T))
    try:
        ids = torch.as_tensor(run.dataset().val[: count * T]).long()
    except MinigptError:
        count = min(count, max(WINDOWS, WRITTEN_TOKENS // T))
        start = torch.tensor([run.encode_prompt("")], device=get_device(run.model)).expand(count, -1)
        # Each window is a text of its own: past block_size a model reads the whole window again for each token.
        return generate(run.model, start, SamplingConfig(max_new_tokens=T, seed=0)).cpu()
    rows = max(1, len(ids) // T)
    return ids[: rows * T].view(rows, -1)


def require_equal_logits(
    theirs: Tensor, run: Run, ids: Tensor, program: str, tolerance: float = MAX_DIFFERENCE
) -> LogitComparison:
    """Compare another program's logits with the run's.

    Args:
        theirs: the other program's logits for `ids`, (B, T, V), on the CPU.
        run: the run.
        ids: token ids (B, T).
        program: name of the program, for the message.
        tolerance: the largest difference that the format explains.

    Raises:
        ExchangeError: the difference is larger than the tolerance, or not a number.
    """
    with torch.inference_mode(), evaluation_mode(run.model):
        ours = run.model(ids.to(get_device(run.model)))[0].cpu()
    difference = (theirs - ours).abs().max().item()
    if not difference <= tolerance:
        raise ExchangeError(f"{program} computes other logits than the run: they differ by {difference:.3g}")
    return LogitComparison(program, difference, _compute_loss(ours, ids), _compute_loss(theirs, ids))


def _compute_loss(logits: Tensor, ids: Tensor) -> float | None:
    """Return the mean loss of the predictions within the windows."""
    if ids.shape[1] < 2:
        return None
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).item()


def choose_check_text(run: Run, ids: Tensor) -> str:
    """Return the text of ids (T,), without special tokens, whose names are ordinary text to the run's tokenizer."""
    special = set(run.tokenizer.special_tokens.values())
    return run.tokenizer.decode(i for i in ids.tolist() if i not in special)
