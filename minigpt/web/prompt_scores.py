"""How likely each token of a prompt is, for requests that want the prompt scored."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minigpt.model import LanguageModel
from minigpt.model.language_model import evaluation_mode, get_device
from minigpt.runs.run import Run
from minigpt.web.text_generation import TokenScore, describe_token, score_tokens

TOKENS_PER_BATCH = 4096


def score_prompt(run: Run, ids: list[int], top: int) -> Iterator[TokenScore]:
    """Yield the score of each token of a prompt.

    Each token is predicted from the tokens before it, at most block_size. Nothing predicts the first token.

    Args:
        run: the run.
        ids: the prompt.
        top: how many of the most likely tokens each score lists.
    """
    yield TokenScore(*describe_token(run.tokenizer, ids[0]), None, ())
    start = 1
    for logits in _predict_prompt(run.model, torch.tensor(ids)):
        end = start + len(logits)
        yield from score_tokens(run.tokenizer, logits, torch.tensor(ids[start:end]), top)
        start = end


@torch.inference_mode()
def _predict_prompt(model: LanguageModel, ids: Tensor) -> Iterator[Tensor]:
    """Yield logits (n, V) that predict ids[1], ids[2] and so on, from at most block_size tokens before each."""
    T = model.config.block_size
    first, later = ids[:-1][:T], ids[:-1].unfold(0, T, 1)[1:] if len(ids) > T + 1 else ids.new_empty(0, T)
    with evaluation_mode(model):
        if len(first):
            yield model(first[None].to(get_device(model)))[0][0]  # (T, V)
        for windows in later.split(max(1, TOKENS_PER_BATCH // T)):  # (n, T)
            if len(windows):
                yield model(windows.to(get_device(model)))[0][:, -1]  # (n, V)
