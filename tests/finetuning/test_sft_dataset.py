"""Batches of examples: only answers are learned, padding changes nothing, and each example comes once an epoch."""

import dataclasses

import pytest
import torch
from texts import PROSE

from minigpt.config import Config, ModelConfig
from minigpt.errors import DataError
from minigpt.finetuning.examples import Example
from minigpt.finetuning.sft_dataset import SFTDataset
from minigpt.finetuning.vocabulary_resize import extend_tokenizer
from minigpt.model import build
from minigpt.model.loss import IGNORE_INDEX, compute_mean_loss
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS, END_OF_ANSWER, ChatTemplate

SHAPE = ModelConfig(vocab_size=70, block_size=48, n_embd=32, n_head=2, n_layer=2)


def build_tokenizer() -> Tokenizer:
    return extend_tokenizer(CharTokenizer.from_text(PROSE), CHAT_TOKENS)[0]


def build_model_and_batch() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    config = Config().override(**vars(dataclasses.replace(SHAPE, vocab_size=tokenizer.vocab_size)))
    examples = [Example.from_pair("reverse: abc", "cba"), Example.from_pair("x", "a much longer answer")]
    data = SFTDataset(examples, examples[:1], ChatTemplate(tokenizer), config)
    return build(config.model), *data.get_all("train")


def test_prompts_and_padding_contribute_no_gradient() -> None:
    model, x, y = build_model_and_batch()
    _, loss = model(x, y)
    loss.backward()
    whole = [p.grad.clone() for p in model.parameters()]
    expected, counted = [torch.zeros_like(p) for p in model.parameters()], int((y != IGNORE_INDEX).sum())
    for row, targets in zip(x, y, strict=True):
        last = int((targets != IGNORE_INDEX).nonzero().max()) + 1
        model.zero_grad()
        logits, _ = model(row[None, :last])  # without padding
        answered = targets[:last] != IGNORE_INDEX
        each = torch.nn.functional.cross_entropy(logits[0][answered], targets[:last][answered], reduction="sum")
        (each / counted).backward()
        expected = [e + p.grad for e, p in zip(expected, model.parameters(), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, expected, strict=True))


def test_more_padding_changes_no_loss() -> None:
    model, x, y = build_model_and_batch()
    wider = torch.nn.functional.pad(x, (0, 9), value=3), torch.nn.functional.pad(y, (0, 9), value=IGNORE_INDEX)
    assert compute_mean_loss(model, *wider) == pytest.approx(compute_mean_loss(model, x, y), rel=1e-6)
    assert model(*wider)[1].item() == pytest.approx(model(x, y)[1].item(), rel=1e-6)


def test_each_example_comes_once_an_epoch_in_batches_of_similar_length() -> None:
    tokenizer = build_tokenizer()
    config = Config().override(**vars(SHAPE), batch_size=8)
    examples = [Example.from_pair("a" * (n % 20 + 1), f"{n}") for n in range(203)]
    data = SFTDataset(examples, examples[:5], ChatTemplate(tokenizer), config)
    for _ in range(2):
        found, padding, whole = [], 0, 0
        while sum(found) < 203:
            x, _ = data.get_batch("train")
            found.append(len(x))
            padding += int((x == 0).sum())
            whole += x.numel()
        assert sum(found) == 203
        assert padding / whole < 0.2
    assert data.position == 406


def test_a_long_example_loses_its_beginning_and_a_long_answer_is_refused() -> None:
    tokenizer = build_tokenizer()
    config = Config().override(**vars(SHAPE))
    long = Example.from_pair("x" * 60, "ab")
    data = SFTDataset([long], [long], ChatTemplate(tokenizer), config)
    assert data.truncated == 2
    ((example,),) = data.items["train"]
    assert len(example.x) == 48
    assert [i for i in example.y if i != IGNORE_INDEX] == [
        *tokenizer.encode("ab"),
        tokenizer.special_tokens[END_OF_ANSWER],
    ]
    with pytest.raises(DataError, match="an answer of 60 characters is longer than the 48 tokens"):
        SFTDataset([Example.from_pair("x", "y" * 60)], [long], ChatTemplate(tokenizer), config)


def test_a_restored_dataset_draws_the_same_batches_and_validation_batches_do_not_change_them() -> None:
    tokenizer = build_tokenizer()
    config = Config().override(**vars(SHAPE), batch_size=8)
    examples = [Example.from_pair("a" * (n % 20 + 1), f"{n}") for n in range(203)]
    first, second = (SFTDataset(examples, examples[:5], ChatTemplate(tokenizer), config) for _ in range(2))
    for _ in range(30):  # into the second epoch
        first.get_batch("train")
    second.load_state_dict(first.state_dict())
    for _ in range(30):
        second.get_batch("val")
        assert all(torch.equal(a, b) for a, b in zip(first.get_batch("train"), second.get_batch("train"), strict=True))
    assert first.position == second.position
