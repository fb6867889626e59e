"""The context-mixing model in plain Python, on short texts. tests/kernels has the compiled one."""

import heapq
import math
from collections import Counter

import numpy as np
import pytest
from conftest import make_text

from minigpt.errors import ConfigError, DataError
from minigpt.model.context_mixing import EXPERTS, CharacterTable, ContextMixer, ContextMixingConfig
from minigpt.model.context_mixing.code_tree import build_huffman_tree
from minigpt.model.context_mixing.contexts import add_to_hash, compute_contexts, find_places

TEXT = make_text(300)
CHARACTERS = sorted(set(TEXT) | set("\nABCabc 'x."))
TABLE = CharacterTable.from_characters(CHARACTERS)
V = len(CHARACTERS)


def encode(text: str) -> np.ndarray:
    return np.array([CHARACTERS.index(character) for character in text])


def fit(length: int = 90, **settings: object) -> ContextMixer:
    return ContextMixer.fit(encode(TEXT[:length]), TABLE, ContextMixingConfig(V, **settings))


@pytest.fixture(scope="module")
def model() -> ContextMixer:
    return fit()


def find_contexts(text: str) -> dict[str, int]:
    """Return the context of each expert for the character after a text, by the expert's name."""
    ids, contexts = encode(text), np.zeros(len(EXPERTS), dtype=np.int64)
    compute_contexts(ids, len(ids), find_places(ids, len(ids), TABLE.kinds), TABLE, contexts)
    return dict(zip(EXPERTS, contexts.tolist(), strict=True))


@pytest.mark.parametrize("context", ["", "s", TEXT[:90], TEXT[50:150], "xxxxxx", "\n\n\n", "Ab'c.x A"])
def test_the_probabilities_of_all_characters_sum_to_one(model: ContextMixer, context: str) -> None:
    log_probs = model.log_probs(encode(context))
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-9)
    assert np.isfinite(log_probs).all()


def test_the_loss_of_a_token_is_minus_its_log_probability(model: ContextMixer) -> None:
    ids = encode(TEXT[20:75])
    expected = [-model.log_probs(ids[:i])[ids[i]] for i in range(len(ids))]
    np.testing.assert_allclose(model.token_losses(ids), expected, rtol=0, atol=1e-12)


def test_measuring_a_text_learns_nothing(model: ContextMixer) -> None:
    before = [array.copy() for array in model.memory]
    model.token_losses(encode(TEXT[90:110]))
    for was, array in zip(before, model.memory, strict=True):
        np.testing.assert_array_equal(array, was)


def test_each_character_is_predicted_before_it_is_learned_from() -> None:
    ids = encode(TEXT[90:130])
    other = np.concatenate([ids[:30], ids[:10]])
    model, same = fit(), fit()
    np.testing.assert_array_equal(model.token_losses(ids)[:30], model.token_losses(other)[:30])
    np.testing.assert_array_equal(model.learn(ids)[:30], same.learn(other)[:30])


def test_a_model_that_learns_while_it_reads_expects_what_repeats() -> None:
    model = fit()
    line = encode(TEXT[90:130])
    first, second = model.learn(line).mean(), model.learn(line).mean()
    assert second < 0.3 * first


def test_a_delay_changes_the_weights_and_not_the_counts() -> None:
    now, later = fit(delay=0), fit(delay=3)
    np.testing.assert_array_equal(now.memory.slots, later.memory.slots)
    np.testing.assert_array_equal(now.memory.text, later.memory.text)
    assert not np.array_equal(now.memory.weights, later.memory.weights)


def test_an_expert_that_is_left_out_counts_nothing() -> None:
    only = fit(left_out=tuple(name for name in EXPERTS if name != "order 0"))
    slots = only.memory.slots
    assert (slots["count"] > 0).sum() == len({node for i in encode(TEXT[:90]) for node in path(only, i)})


def path(model: ContextMixer, token: int) -> list[int]:
    return model.tree.nodes[token, : model.tree.lengths[token]].tolist()


@pytest.mark.parametrize("vocab_size", [1, 2, 3])
def test_a_vocabulary_may_have_few_characters(vocab_size: int) -> None:
    ids = np.arange(40) % vocab_size
    table = CharacterTable.from_characters("\nab"[:vocab_size])
    model = ContextMixer.fit(ids, table, ContextMixingConfig(vocab_size))
    assert np.exp(model.log_probs(ids)).sum() == pytest.approx(1)
    assert model.token_losses(ids).mean() < math.log(vocab_size) + 1e-9
    assert ContextMixer.fit([], table, ContextMixingConfig(vocab_size)).token_losses([]).shape == (0,)


def test_the_tree_has_the_mean_length_of_huffman_s_code() -> None:
    counts = Counter(TEXT)
    numbers = [counts[character] for character in CHARACTERS]
    heap, total = sorted(numbers), 0  # the sum of all merged counts is the length of the coded text
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    tree = build_huffman_tree(numbers)
    assert int(tree.lengths @ np.array(numbers)) == total
    paths = [tuple((node, int(tree.bits[i, node])) for node in tree.nodes[i, : tree.lengths[i]]) for i in range(V)]
    assert len(set(paths)) == V
    assert sum(2.0**-length for length in tree.lengths) == 1  # so no path is the beginning of another


def test_a_context_is_equal_where_its_expert_sees_no_difference() -> None:
    one, other = find_contexts("Ab\n\nA:\nxx abc 'x"), find_contexts("Ab\n\nb:\nxx.ABC 'x")
    same = {name for name in EXPERTS if one[name] == other[name]}
    assert {"order 0", "order 3", "order 1", "order 5, lower case", "word", "word and gap", "column"} <= same
    assert "word and the word before" in same
    assert not {"order 5", "order 12", "speaker", "word and speaker", "kinds of 12 characters"} & same


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("the line above", "cbc\nA", "abb\nA"),
        ("column", "abc", "bbc"),
        ("word and the first of the line", "abc b x", "abc c x"),
        ("word and the second word before", "abc b x", "abc c x"),
        ("without the last character", "abcA", "abcb"),
        ("without the one before", "abcA", "abbA"),
    ],
)
def test_an_expert_ignores_what_it_does_not_look_at(name: str, text: str, other: str) -> None:
    contexts, others = find_contexts(text), find_contexts(other)
    assert contexts[name] == others[name]
    assert contexts["order 7"] != others["order 7"]


def test_the_hash_is_the_same_in_64_bits_with_overflow() -> None:
    value, h = 12345, 2**61 + 987654321
    with np.errstate(over="ignore"):
        wrapped = (np.int64(h) + np.int64(value) + np.int64(2)) * np.int64(0x2545F4914F6CDD1D) & np.int64(2**62 - 1)
    assert add_to_hash(h, value) == int(wrapped)


def test_a_text_is_written_from_a_seed(model: ContextMixer) -> None:
    prompt = encode("the ").tolist()
    text = model.generate(prompt, 12, seed=3)
    assert text[:4] == prompt
    assert len(text) == 16
    assert text == model.generate(prompt, 12, seed=3)
    assert text != model.generate(prompt, 12, seed=4)


def test_values_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(DataError, match=f"ids run from 0 to {V}: they must lie in 0 to {V - 1}"):
        ContextMixer.fit([0, V], TABLE, ContextMixingConfig(V))
    with pytest.raises(ConfigError, match="there is no expert 'order 99': choose among order 0"):
        ContextMixingConfig(V, left_out=("order 99",))
    with pytest.raises(ConfigError, match="vocab_size must be at least 1 and delay at least 0, not 0 and 5"):
        ContextMixingConfig(0, delay=5)
