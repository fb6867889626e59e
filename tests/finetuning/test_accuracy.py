"""Accuracy: exact matches are counted, with a confidence interval and a baseline."""

import dataclasses

import pytest
from texts import PROSE

from minigpt.config import ModelConfig
from minigpt.finetuning.accuracy import Accuracy, compute_majority_baseline, measure_accuracy
from minigpt.finetuning.examples import Example
from minigpt.finetuning.vocabulary_resize import extend_tokenizer
from minigpt.model import build
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS, END_OF_ANSWER, ChatTemplate

SHAPE = ModelConfig(vocab_size=70, block_size=48, n_embd=32, n_head=2, n_layer=2)


def test_the_interval_is_wilsons_and_the_baseline_is_the_most_frequent_answer() -> None:
    low, high = Accuracy(45, 50).interval
    assert (low, high) == (pytest.approx(0.7864, abs=1e-4), pytest.approx(0.9565, abs=1e-4))  # Wilson's formula
    assert Accuracy(50, 50).interval[1] == 1
    train = [Example.from_pair("q", answer) for answer in "aab"]
    assert compute_majority_baseline(train, [Example.from_pair("q", answer) for answer in "abca"]) == Accuracy(2, 4)


def test_only_an_answer_that_ends_and_matches_exactly_is_right() -> None:
    tokenizer, _ = extend_tokenizer(CharTokenizer.from_text(PROSE), CHAT_TOKENS)
    model = build(dataclasses.replace(SHAPE, vocab_size=tokenizer.vocab_size)).eval()
    model.lm_head.weight.data.zero_()
    model.lm_head.bias.data.zero_()
    model.lm_head.bias.data[tokenizer.encode("a")[0]] = 5.0
    examples = [Example.from_pair("q", "a"), Example.from_pair("long question", "b")]
    assert measure_accuracy(model, ChatTemplate(tokenizer), examples) == Accuracy(0, 2)  # it never ends
    model.lm_head.bias.data[tokenizer.special_tokens[END_OF_ANSWER]] = 9.0
    assert measure_accuracy(model, ChatTemplate(tokenizer), [Example.from_pair("q", "")]).share == 1
