"""How likely each token of a prompt is, for requests that want the prompt scored."""

from collections.abc import Iterator

import torch

from minigpt.runs.run import Run
from minigpt.studies.token_predictions import stream_text_logits
from minigpt.web.text_generation import TokenScore, describe_token, score_tokens


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
    for logits in stream_text_logits(run.model, torch.tensor(ids)):
        end = start + len(logits)
        yield from score_tokens(run.tokenizer, logits, torch.tensor(ids[start:end]), top)
        start = end
