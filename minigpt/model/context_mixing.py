"""A context-mixing model: 37 experts that count, and a small network that weighs them at each decision.

Context mixing is how the best compressors predict text (Mahoney 2005, "Adaptive Weighing of Context Models for
Lossless Data Compression", the PAQ family). It has six ideas:

1. Decisions. A character is a path through a binary tree, and each step of the path is a decision with two outcomes.
   So every expert predicts one bit at a time. The tree is the Huffman code of the training text, so a frequent
   character needs few decisions. The probability of a character is the product along its path, so the
   probabilities of all characters sum to one.
2. Experts. Each expert looks at one part of the text, its context (character_contexts.py), and keeps one slot for each
   context and decision. The slot has the probability of a 1, an average over the decisions in this context.
3. Histories. The slot also has the last decisions themselves, such as 0, 0, 0. What follows "three times 0" is
   learned for each expert, from all its contexts together. So an expert learns how far to trust what it saw once.
4. Mixing. The experts' probabilities p become log(p / (1 - p)). Their weighted sum, squashed by the logistic function,
   is the mixture. The weights learn by gradient descent on the loss of each decision. There are several sets of
   weights, chosen by what is known of the place: the previous character, the length of the word, and so on. A second
   layer mixes the mixtures.
5. Correction. The last stage learns what really happened when the mixture said, say, 0.9 after this character.
6. Delay. A model that will read unknown text with fixed counts should learn its weights in the same situation. So in
   `fit`, the counts at each place come from the text up to `delay` characters before it. Without the delay the
   weights trust the long contexts too much, because a text repeats itself nearby.

The functions below are plain Python on NumPy arrays, in the part of Python that Numba compiles. `ContextMixer` calls
them directly, or compiled (kernels/numba_context_mixing.py), which is a thousand times as fast.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy import ndarray

from minigpt.errors import ConfigError, DataError
from minigpt.model.character_contexts import (
    CONTINUATION_ORDERS,
    CONTINUATIONS,
    EXPERTS,
    MAX_ORDER,
    CharacterTable,
    Places,
    add_to_hash,
    compute_contexts,
    find_places,
    hash_last,
)

N_EXPERTS = len(EXPERTS)
HISTORY_BITS = 10  # a history of up to 9 decisions, after a leading 1
INPUTS = 2 * N_EXPERTS + 3  # two an expert, two of the match, and a constant
SELECTORS = 7
WEIGHT_SETS = 2**13  # of each selector
CORRECTION_SETS = 2**16
CORRECTION_POINTS = 33  # from -8 to 8
MATCH_ORDER = 7  # a match starts with this many characters
MATCH_SLOTS = 2**20
MATCH_BUCKETS = 20
MAX_COUNT = 255
MAX_LOGIT = 12.0
LAST_RATE = 0.07  # of the second layer, as a part of the first layer's
MIN_P = 1 / 2048  # of a slot
SLOT = np.dtype([("check", "u1"), ("count", "u1"), ("history", "u2"), ("p", "f4")])  # of one context and decision
PROBES = 4  # slots where a context may lie
SLOTS_PER_CHARACTER = 64
MAX_SLOT_BITS = 26
GENERATION_CONTEXT = 4000  # characters before the next one that are read

_lengths = np.array([h.bit_length() - 1 for h in range(2**HISTORY_BITS)])
_ones = np.array([max(0, h.bit_count() - 1) for h in range(2**HISTORY_BITS)])
HAS_ONE_OUTCOME = (_ones == 0) | (_ones == _lengths)  # of a history: all its decisions were the same
CONFIDENCE = np.array(  # of a count: 0 to 5, then one step each time it doubles
    [count if count <= 5 else 5 + math.ceil(math.log2(count / 5)) for count in range(MAX_COUNT + 1)]
)
CONFIDENCES = 2 * (int(CONFIDENCE.max()) + 1)


@dataclass(frozen=True)
class ContextMixingConfig:
    """The settings of a context-mixing model. The defaults were chosen on the last tenth of a training text.

    Args:
        vocab_size: the number of different characters.
        delay: characters between a prediction and the newest text in its counts, while the weights are learned; at
            most a thirtieth of the text. 0 for a model that goes on learning while it reads (adaptive).
        rate: the learning rate of the weights at the start.
        decay: the rate at character i is rate / (1 + decay * sqrt(i / 1000)).
        start_weight: of each input.
        slot_limit: the smallest step of a slot's probability. A slot starts as a mean over its decisions.
        history_limit: the smallest step of a history's probability.
        left_out: experts that say nothing, by their name in EXPERTS.

    Raises:
        ConfigError: a value is outside its range, or there is no such expert.
    """

    vocab_size: int
    delay: int = 30_000
    rate: float = 0.015
    decay: float = 0.3
    start_weight: float = 0.05
    slot_limit: float = 1 / 256
    history_limit: float = 1 / 256
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vocab_size < 1 or self.delay < 0:
            raise ConfigError(
                f"vocab_size must be at least 1 and delay at least 0, not {self.vocab_size} and {self.delay}"
            )
        for name in self.left_out:
            if name not in EXPERTS:
                raise ConfigError(f"there is no expert {name!r}: choose among {', '.join(EXPERTS)}")


class CodeTree(NamedTuple):
    """A binary tree with a character at each leaf. Its V - 1 inner nodes are the decisions; the last one is the root.

    Attributes:
        lengths: the number of decisions of each character, (V,).
        nodes: the decisions of each character, from the root, (V, longest).
        bits: the outcome of each decision for a character, (V, V - 1); -1 where it is not on the character's path.
    """

    lengths: ndarray
    nodes: ndarray
    bits: ndarray


def build_huffman_tree(counts: Sequence[int]) -> CodeTree:
    """Build the tree with the fewest decisions for a text (Huffman 1952).

    Args:
        counts: how often each character occurs, (V,).
    """
    V = len(counts)
    heap = [(count, i) for i, count in enumerate(counts)]
    heapq.heapify(heap)
    children = []
    for node in range(V, 2 * V - 1):
        (left_count, left), (right_count, right) = heapq.heappop(heap), heapq.heappop(heap)
        children.append((left, right))
        heapq.heappush(heap, (left_count + right_count, node))
    paths: dict[int, list[tuple[int, int]]] = {2 * V - 2: []}  # the decisions that lead to each node
    for node in range(2 * V - 2, V - 1, -1):
        for bit, child in enumerate(children[node - V]):
            paths[child] = [*paths[node], (node - V, bit)]
    lengths = np.array([len(paths[i]) for i in range(V)])
    nodes = np.zeros((V, max(1, lengths.max())), dtype=np.int64)
    bits = np.full((V, max(1, V - 1)), -1, dtype=np.int64)
    for i in range(V):
        for step, (node, bit) in enumerate(paths[i]):
            nodes[i, step], bits[i, node] = node, bit
    return CodeTree(lengths, nodes, bits)


class Memory(NamedTuple):
    """What the model has learned.

    Attributes:
        slots: of all experts, (a power of two,), SLOT.
        histories: the probability of a 1 after each history, (N_EXPERTS, 2**HISTORY_BITS).
        history_counts: how often each history was seen, as `histories`.
        matches: the probability that a match of each length continues, (MATCH_BUCKETS,).
        weights: of the first layer, (SELECTORS, WEIGHT_SETS, INPUTS).
        trusts: more weights of the first layer, chosen for each input by its own slot, (INPUTS, CONFIDENCES).
        last_weights: of the second layer, (V - 1, SELECTORS + 1).
        corrections: probabilities by the mixture's logit, (2, CORRECTION_SETS, CORRECTION_POINTS).
        text: the characters counted so far, as match source, (space,), int32.
        match_table: where the last characters occurred last in `text`, (MATCH_SLOTS,); 0 for never.
        position: three numbers: the characters in `text`, and the steps of the weights.
    """

    slots: ndarray
    histories: ndarray
    history_counts: ndarray
    matches: ndarray
    weights: ndarray
    trusts: ndarray
    last_weights: ndarray
    corrections: ndarray
    text: ndarray
    match_table: ndarray
    position: ndarray


COUNTED, STEPS = 0, 1  # of Memory.position


class Rates(NamedTuple):
    """The numbers of ContextMixingConfig that the functions below need."""

    rate: float
    decay: float
    slot_limit: float
    history_limit: float


class Place(NamedTuple):
    """What is known of the character to predict. The arrays are written anew for each character or decision.

    Attributes:
        speaks: whether each expert takes part, (N_EXPERTS,).
        contexts: of each expert, (N_EXPERTS,).
        selected: what chooses the weights of each selector, before the decision is added, (SELECTORS,).
        context_hashes: of one and of two characters, for the correction, (2,).
        match: the place in `Memory.text` that follows the match, its length, and the predicted character or -1, (3,).
        found: the slot of each expert for one decision, or -1, (N_EXPERTS,).
        inputs: of the first layer, (INPUTS,).
        trust: which of `Memory.trusts` each input has, (INPUTS,).
        sets: the chosen set of weights of each selector, (SELECTORS,).
        outputs: of the first layer, (SELECTORS + 1,).
        points: the cells of `Memory.corrections` for one decision, and how far to the next point, (2, 2).
    """

    speaks: ndarray
    contexts: ndarray
    selected: ndarray
    context_hashes: ndarray
    match: ndarray
    found: ndarray
    inputs: ndarray
    trust: ndarray
    sets: ndarray
    outputs: ndarray
    points: ndarray


POINTER, LENGTH, PREDICTED = range(3)  # of Place.match


def stretch(p: float) -> float:
    """Return the logit of a probability."""
    return math.log(p / (1 - p))


def squash(logit: float) -> float:
    """Return the probability of a logit: the logistic function."""
    return 1 / (1 + math.exp(-logit))


def find_slot(slots: ndarray, h: int, add: bool) -> int:
    """Return the slot for a hash, or -1 where the context was never counted.

    Args:
        slots: of all experts.
        h: the hash of an expert, a context and a decision.
        add: take a new slot if there is none. It may replace the least used of the slots where the context may lie.
    """
    first = (h >> 30) & (len(slots) - 1)
    check = (h >> 14) % 255 + 1
    least = first
    for probe in range(PROBES):
        slot = first ^ probe
        if slots[slot]["check"] == check:
            return slot
        if slots[slot]["count"] < slots[least]["count"]:
            least = slot
        if slots[slot]["count"] == 0:
            break
    if not add:
        return -1
    slots[least]["check"] = check
    slots[least]["history"] = 1
    slots[least]["p"] = 0.5
    slots[least]["count"] = 0
    return least


def enter_place(memory: Memory, table: CharacterTable, place: Place, ids: ndarray, i: int) -> Places:
    """Prepare the prediction of ids[i] from ids[:i]: contexts, match and selectors."""
    places = find_places(ids, i, table.kinds)
    compute_contexts(ids, i, places, table, place.contexts)
    follow_match(memory, place, ids, i)
    last = ids[i - 1] if i > 0 else 0
    second = ids[i - 2] if i > 1 else 0
    V = len(table.kinds)
    place.selected[0] = 0  # the longest order that knows the decision, added in `predict`
    place.selected[1] = min(place.match[LENGTH], 15) if place.match[LENGTH] < 16 else 16
    place.selected[2] = last
    place.selected[3] = table.kinds[last] * 7 + table.kinds[second]
    place.selected[4] = min(i - places.word, 15)
    place.selected[5] = min(i - places.line, V - 1, 63)
    place.selected[6] = 0
    place.context_hashes[0] = last
    place.context_hashes[1] = last * V + second
    return places


def follow_match(memory: Memory, place: Place, ids: ndarray, i: int) -> None:
    """Go on with the match, or look for a new one: a place in the counted text with the same last characters."""
    match, text = place.match, memory.text
    counted = memory.position[COUNTED]
    if match[LENGTH] > 0 and match[POINTER] < counted and text[match[POINTER]] == ids[i - 1]:
        match[LENGTH] += 1
        match[POINTER] += 1
    else:
        match[LENGTH] = 0
        match[POINTER] = memory.match_table[(place.contexts[MATCH_ORDER] >> 20) % MATCH_SLOTS]
        while (
            match[LENGTH] < min(32, i, match[POINTER])
            and text[match[POINTER] - 1 - match[LENGTH]] == ids[i - 1 - match[LENGTH]]
        ):
            match[LENGTH] += 1
        if match[LENGTH] < MATCH_ORDER - 2:
            match[LENGTH] = 0
    is_match = match[LENGTH] > 0 and match[POINTER] < counted
    match[PREDICTED] = text[match[POINTER]] if is_match else -1


def get_match_bucket(length: int) -> int:
    """Return the entry of `Memory.matches` for a length."""
    return min(length, 15) if length < 16 else min(14 + length // 8, MATCH_BUCKETS - 1)


def predict(memory: Memory, tree: CodeTree, place: Place, node: int) -> float:
    """Return the probability that the decision at a node is 1, and keep in `place` what `learn` needs.

    Args:
        memory: what is learned.
        tree: of the characters.
        place: after `enter_place`.
        node: the decision.
    """
    inputs, trust = place.inputs, place.trust
    longest = 0
    for expert in range(N_EXPERTS):
        h = add_to_hash(add_to_hash(place.contexts[expert], expert), node)
        slot = find_slot(memory.slots, h, False) if place.speaks[expert] else -1
        place.found[expert] = slot
        inputs[2 * expert : 2 * expert + 2] = 0.0
        if slot >= 0:
            history, count = memory.slots[slot]["history"], memory.slots[slot]["count"]
            inputs[2 * expert] = stretch(np.float64(memory.slots[slot]["p"]))
            inputs[2 * expert + 1] = stretch(memory.histories[expert, history])
            trust[2 * expert : 2 * expert + 2] = 2 * CONFIDENCE[count] + HAS_ONE_OUTCOME[history]
            if expert <= MAX_ORDER:
                longest = expert
    add_match_inputs(memory, tree, place, node)
    place.selected[0] = longest
    for selector in range(SELECTORS):
        selected = place.selected[selector]
        if selector == 1 and inputs[INPUTS - 3] == 0:  # the match says nothing about this decision
            selected = 17
        place.sets[selector] = (selected * len(memory.last_weights) + node) % WEIGHT_SETS
        mixed = np.sum(memory.weights[selector, place.sets[selector]] * inputs)
        place.outputs[selector] = min(max(mixed, -MAX_LOGIT), MAX_LOGIT)
    mixed = 0.0
    for k in range(INPUTS):
        mixed += memory.trusts[k, trust[k]] * inputs[k]
    place.outputs[SELECTORS] = min(max(mixed, -MAX_LOGIT), MAX_LOGIT)
    return correct(memory, place, node, np.sum(memory.last_weights[node] * place.outputs))


def add_match_inputs(memory: Memory, tree: CodeTree, place: Place, node: int) -> None:
    """Write the last three inputs: two of the match, by the character that followed it, and a constant."""
    predicted = place.match[PREDICTED]
    place.inputs[INPUTS - 3 : INPUTS - 1] = 0.0
    place.inputs[INPUTS - 1] = 0.3
    if predicted >= 0 and tree.bits[predicted, node] >= 0:
        sign = 2 * tree.bits[predicted, node] - 1
        place.inputs[INPUTS - 3] = sign * stretch(memory.matches[get_match_bucket(place.match[LENGTH])])
        place.inputs[INPUTS - 2] = sign * min(place.match[LENGTH], 32) / 16


def correct(memory: Memory, place: Place, node: int, logit: float) -> float:
    """Return the mean of a mixture's probability and of two learned corrections of it.

    This is PAQ's secondary symbol estimation: a table of what happened, between whose points is interpolated.
    """
    bounded = min(max(logit, -7.99), 7.99)
    cell = int((bounded + 8) * 2)
    place.points[0, 1] = (bounded + 8) * 2 - cell  # how far towards the next point
    p = squash(min(max(logit, -MAX_LOGIT), MAX_LOGIT))
    place.points[1, 1] = p
    total = 2 * p
    for k in range(2):
        h = (place.context_hashes[k] * len(memory.last_weights) + node) % CORRECTION_SETS
        place.points[k, 0] = h * CORRECTION_POINTS + cell
        row = memory.corrections[k, h]
        total += row[cell] * (1 - place.points[0, 1]) + row[cell + 1] * place.points[0, 1]
    return min(max(total / 4, 1e-5), 1 - 1e-5)


def learn(memory: Memory, tree: CodeTree, place: Place, node: int, bit: int, rates: Rates) -> None:
    """Learn from the outcome of a decision after `predict`: weights, histories, match and corrections."""
    rate = rates.rate / (1 + rates.decay * math.sqrt(memory.position[STEPS] / 1000))
    error = bit - place.points[1, 1]
    memory.last_weights[node] += LAST_RATE * rate * error * place.outputs
    for selector in range(SELECTORS):
        step = rate * (bit - squash(place.outputs[selector]))
        memory.weights[selector, place.sets[selector]] += step * place.inputs
    step = rate * (bit - squash(place.outputs[SELECTORS]))
    for k in range(INPUTS):
        memory.trusts[k, place.trust[k]] += step * place.inputs[k]
    for k in range(2):
        row = memory.corrections[k, int(place.points[k, 0]) // CORRECTION_POINTS]
        cell, share = int(place.points[k, 0]) % CORRECTION_POINTS, place.points[0, 1]
        row[cell] += 0.02 * (1 - share) * (bit - row[cell])
        row[cell + 1] += 0.02 * share * (bit - row[cell + 1])
    for expert in range(N_EXPERTS):
        slot = place.found[expert]
        if slot >= 0:
            history = memory.slots[slot]["history"]
            memory.history_counts[expert, history] += 1
            size = max(1 / (memory.history_counts[expert, history] + 1.5), rates.history_limit)
            memory.histories[expert, history] += size * (bit - memory.histories[expert, history])
    predicted = place.match[PREDICTED]
    if predicted >= 0 and tree.bits[predicted, node] >= 0:
        bucket = get_match_bucket(place.match[LENGTH])
        continued = 1.0 if tree.bits[predicted, node] == bit else 0.0
        memory.matches[bucket] += 0.002 * (continued - memory.matches[bucket])


def count_token(memory: Memory, tree: CodeTree, place: Place, ids: ndarray, i: int, rates: Rates) -> None:
    """Count ids[i] in the slots of all experts, and append it to the text. `place.contexts` are its contexts.

    The experts "new after order n" count a decision only where the context one character longer has not seen it. So
    they count in how many contexts something occurred, as Kneser and Ney's continuation counts do (ngram.py).
    """
    token = ids[i]
    is_new = np.zeros(MAX_ORDER + 1, np.bool_)
    for step in range(tree.lengths[token]):
        node = tree.nodes[token, step]
        bit = tree.bits[token, node]
        for expert in range(N_EXPERTS):
            order = expert - CONTINUATIONS + 1
            if not place.speaks[expert] or (1 <= order <= CONTINUATION_ORDERS and not is_new[order + 1]):
                continue
            h = add_to_hash(add_to_hash(place.contexts[expert], expert), node)
            slot = find_slot(memory.slots, h, True)
            count = np.int64(memory.slots[slot]["count"])
            p = np.float64(memory.slots[slot]["p"])
            history = 2 * np.int64(memory.slots[slot]["history"]) + bit
            if history >= 2**HISTORY_BITS:  # forget the oldest decision
                history = history % 2 ** (HISTORY_BITS - 1) + 2 ** (HISTORY_BITS - 1)
            p += (bit - p) * max(1 / (count + 1.6), rates.slot_limit)
            memory.slots[slot]["p"] = min(max(p, MIN_P), 1 - MIN_P)
            memory.slots[slot]["count"] = min(count + 1, MAX_COUNT)
            memory.slots[slot]["history"] = history
            if expert <= MAX_ORDER:
                is_new[expert] = count == 0
    counted = memory.position[COUNTED]
    memory.text[counted] = token
    memory.match_table[(place.contexts[MATCH_ORDER] >> 20) % MATCH_SLOTS] = counted
    memory.position[COUNTED] = counted + 1


def read_text(
    memory: Memory,
    tree: CodeTree,
    table: CharacterTable,
    place: Place,
    ids: ndarray,
    learns: bool,
    delay: int,
    rates: Rates,
    losses: ndarray,
) -> None:
    """Predict each token of a text from those before it, and learn from it where `learns`.

    Args:
        memory: what is learned.
        tree: of the characters.
        table: of the characters.
        place: to work in.
        ids: the text (N,).
        learns: whether to learn. Each token is predicted before it is learned from.
        delay: tokens between a prediction and the newest token in its counts, besides the token itself.
        rates: of learning.
        losses: of each token in nats (N,), are written here.
    """
    for i in range(len(ids)):
        enter_place(memory, table, place, ids, i)
        losses[i] = 0.0
        for step in range(tree.lengths[ids[i]]):
            node = tree.nodes[ids[i], step]
            bit = tree.bits[ids[i], node]
            p = predict(memory, tree, place, node)
            losses[i] -= math.log(p if bit == 1 else 1 - p)
            if learns:
                learn(memory, tree, place, node, bit, rates)
        if learns:
            memory.position[STEPS] += 1
            if delay > 0 and i >= delay:
                compute_contexts(ids, i - delay, find_places(ids, i - delay, table.kinds), table, place.contexts)
            if i >= delay:
                count_token(memory, tree, place, ids, i - delay, rates)
    if learns:
        for i in range(max(0, len(ids) - delay), len(ids) if delay > 0 else 0):
            compute_contexts(ids, i, find_places(ids, i, table.kinds), table, place.contexts)
            count_token(memory, tree, place, ids, i, rates)


def predict_token(
    memory: Memory, tree: CodeTree, table: CharacterTable, place: Place, ids: ndarray, i: int, log_probs: ndarray
) -> None:
    """Write the log-probabilities (V,) of every token at position i of a text, from ids[:i]."""
    place.match[:] = 0
    for j in range(i):  # which match the text is in depends on where it began
        place.contexts[MATCH_ORDER] = hash_last(ids, j, MATCH_ORDER)
        follow_match(memory, place, ids, j)
    enter_place(memory, table, place, ids, i)
    log_probs[:] = 0.0
    for node in range(len(log_probs) - 1):
        p = predict(memory, tree, place, node)
        for token in range(len(log_probs)):
            if tree.bits[token, node] == 1:
                log_probs[token] += math.log(p)
            elif tree.bits[token, node] == 0:
                log_probs[token] += math.log(1 - p)


class ContextMixer:
    """A context-mixing model of characters, made by `fit`.

    Args:
        config: its settings.
        table: of the vocabulary's characters.
        counts: how often each character occurs in the training text, (V,).
        length: of the training text.
        functions: of this file, compiled or not, by name.
    """

    def __init__(
        self,
        config: ContextMixingConfig,
        table: CharacterTable,
        counts: Sequence[int],
        length: int,
        functions: dict[str, Callable] | None = None,
    ) -> None:
        self.config, self.table = config, table
        self.tree = build_huffman_tree(counts)
        self.memory = _create_memory(config, length)
        self._place = _create_place(config)
        plain: dict[str, Callable] = {"read_text": read_text, "predict_token": predict_token}
        self._functions = plain if functions is None else functions
        self._rates = Rates(config.rate, config.decay, config.slot_limit, config.history_limit)

    @classmethod
    def fit(
        cls,
        ids: Sequence[int] | ndarray,
        table: CharacterTable,
        config: ContextMixingConfig,
        functions: dict[str, Callable] | None = None,
    ) -> Self:
        """Learn from a text, in one pass.

        Args:
            ids: the token ids of the training text, (N,).
            table: of the vocabulary's characters.
            config: the settings.
            functions: the functions of this file, compiled (`acceleration.compile_context_mixing`); by default as
                they are.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        text = _to_valid_ids(ids, config.vocab_size)
        model = cls(config, table, np.bincount(text, minlength=config.vocab_size).tolist(), len(text), functions)
        model._read(text, True, min(config.delay, len(text) // 30))
        return model

    def token_losses(self, ids: Sequence[int] | ndarray) -> ndarray:
        """Return the loss of every token of a text, each predicted once from the tokens before it. Learn nothing.

        Args:
            ids: the token ids of the text, (N,).

        Returns:
            The losses in nats, (N,), float64. The first token has no context.
        """
        return self._read(_to_valid_ids(ids, self.config.vocab_size), False, 0)

    def learn(self, ids: Sequence[int] | ndarray) -> ndarray:
        """Read a text, and learn from each token after its prediction.

        Args:
            ids: the token ids of the text, (N,).

        Returns:
            The losses in nats, (N,), float64, of each token before it was learned from.
        """
        return self._read(_to_valid_ids(ids, self.config.vocab_size), True, 0)

    def log_probs(self, ids: Sequence[int] | ndarray) -> ndarray:
        """Return the log-probabilities (V,), float64, of every token after a text (N,)."""
        text = _to_valid_ids(ids, self.config.vocab_size)
        log_probs = np.zeros(self.config.vocab_size)
        predict_next = self._functions["predict_token"]
        predict_next(self.memory, self.tree, self.table, self._place, text, len(text), log_probs)
        return log_probs

    def generate(self, prompt: Sequence[int], max_new_tokens: int, seed: int = 0) -> list[int]:
        """Return a text that goes on after a prompt: each token is drawn from the model's probabilities.

        Args:
            prompt: token ids.
            max_new_tokens: the number of new tokens.
            seed: of the random numbers.

        Returns:
            The prompt and the new tokens.
        """
        rng = np.random.default_rng(seed)
        ids = list(prompt)
        for _ in range(max_new_tokens):
            p = np.exp(self.log_probs(ids[-GENERATION_CONTEXT:]))
            ids.append(int(rng.choice(self.config.vocab_size, p=p / p.sum())))
        return ids

    def _read(self, ids: ndarray, learns: bool, delay: int) -> ndarray:
        """Call `read_text`, with enough space in the memory's text."""
        if learns:
            space = np.zeros(len(ids), dtype=np.int32)
            self.memory = self.memory._replace(text=np.append(self.memory.text[: self.memory.position[COUNTED]], space))
        losses = np.empty(len(ids))
        self._place.match[:] = 0
        read = self._functions["read_text"]
        read(self.memory, self.tree, self.table, self._place, ids, learns, delay, self._rates, losses)
        return losses


def _create_memory(config: ContextMixingConfig, length: int) -> Memory:
    """Return the memory before the first character of a text of `length` characters."""
    slots = 2 ** min(max(math.ceil(math.log2(max(1, SLOTS_PER_CHARACTER * length))), 12), MAX_SLOT_BITS)
    nodes = max(1, config.vocab_size - 1)
    histories = np.tile((_ones + 0.4) / (_lengths + 0.8), (N_EXPERTS, 1))
    points = 1 / (1 + np.exp(-(np.arange(CORRECTION_POINTS) / 2 - 8)))
    return Memory(
        slots=np.zeros(slots, dtype=SLOT),
        histories=histories,
        history_counts=np.zeros(histories.shape, dtype=np.int64),
        matches=np.full(MATCH_BUCKETS, 0.9),
        weights=np.full((SELECTORS, WEIGHT_SETS, INPUTS), config.start_weight),
        trusts=np.full((INPUTS, CONFIDENCES), config.start_weight),
        last_weights=np.full((nodes, SELECTORS + 1), 1 / (SELECTORS + 1)),
        corrections=np.tile(points, (2, CORRECTION_SETS, 1)),
        text=np.zeros(0, dtype=np.int32),
        match_table=np.zeros(MATCH_SLOTS, dtype=np.int64),
        position=np.zeros(2, dtype=np.int64),
    )


def _create_place(config: ContextMixingConfig) -> Place:
    """Return the arrays to work in."""
    return Place(
        speaks=np.array([name not in config.left_out for name in EXPERTS]),
        contexts=np.zeros(N_EXPERTS, dtype=np.int64),
        selected=np.zeros(SELECTORS, dtype=np.int64),
        context_hashes=np.zeros(2, dtype=np.int64),
        match=np.zeros(3, dtype=np.int64),
        found=np.zeros(N_EXPERTS, dtype=np.int64),
        inputs=np.zeros(INPUTS),
        trust=np.zeros(INPUTS, dtype=np.int64),
        sets=np.zeros(SELECTORS, dtype=np.int64),
        outputs=np.zeros(SELECTORS + 1),
        points=np.zeros((2, 2)),
    )


def _to_valid_ids(ids: Sequence[int] | ndarray, vocab_size: int) -> ndarray:
    """Return the ids as an int32 array (N,); raise DataError if one is outside the vocabulary."""
    array = np.asarray(ids, dtype=np.int64)
    if len(array) and not 0 <= array.min() <= array.max() < vocab_size:
        raise DataError(f"ids run from {array.min()} to {array.max()}: they must lie in 0 to {vocab_size - 1}")
    return array.astype(np.int32)
