"""The functions of context mixing: predict a decision, learn from it, count a character, read a text.

They are plain Python on NumPy arrays, in the part of Python that Numba compiles.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from minigpt.model.context_mixing.code_tree import CodeTree
from minigpt.model.context_mixing.contexts import (
    CONTINUATION_ORDERS,
    CONTINUATIONS,
    MAX_ORDER,
    CharacterTable,
    add_to_hash,
    compute_contexts,
    find_places,
    hash_last,
)
from minigpt.model.context_mixing.memory import (
    CONFIDENCE,
    CORRECTION_SETS,
    COUNTED,
    HAS_ONE_OUTCOME,
    HISTORY_BITS,
    INPUTS,
    LENGTH,
    MATCH_BUCKETS,
    MATCH_SLOTS,
    MAX_COUNT,
    N_EXPERTS,
    POINT,
    POINTER,
    PREDICTED,
    PROBABILITY,
    SELECTORS,
    SHARE,
    STEPS,
    WEIGHT_SETS,
    Memory,
    Place,
    find_slot,
)

MATCH_ORDER = 7  # a match starts with this many characters
MAX_LOGIT = 12.0
LAST_RATE = 0.07  # of the second layer, as a part of the first layer's
CORRECTION_RATE = 0.02
MATCH_RATE = 0.002
MIN_P = 1 / 2048  # of a slot


class Rates(NamedTuple):
    """The numbers of ContextMixingConfig that the functions below need."""

    rate: float
    decay: float
    slot_limit: float
    history_limit: float


def stretch(p: float) -> float:
    """Return the logit of a probability."""
    return math.log(p / (1 - p))


def squash(logit: float) -> float:
    """Return the probability of a logit: the logistic function."""
    return 1 / (1 + math.exp(-logit))


def enter_place(memory: Memory, table: CharacterTable, place: Place, ids: ndarray, i: int) -> None:
    """Prepare the prediction of ids[i] from ids[:i]: contexts, match and selectors."""
    places = find_places(ids, i, table.kinds)
    compute_contexts(ids, i, places, table, place.contexts)
    follow_match(memory, place, ids, i)
    last = ids[i - 1] if i > 0 else 0
    second = ids[i - 2] if i > 1 else 0
    V = len(table.kinds)
    place.selected[1] = min(place.match[LENGTH], 16)  # place.selected[0] depends on the decision: see `predict`
    place.selected[2] = last
    place.selected[3] = table.kinds[last] * 7 + table.kinds[second]
    place.selected[4] = min(i - places.word, 15)
    place.selected[5] = min(i - places.line, V - 1, 63)
    place.selected[6] = 0  # the decision alone
    place.context_hashes[0] = last
    place.context_hashes[1] = last * V + second


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
    height = (min(max(logit, -7.99), 7.99) + 8) * 2
    point = int(height)
    share = height - point
    p = squash(min(max(logit, -MAX_LOGIT), MAX_LOGIT))
    place.cells[POINT] = point
    place.mixture[PROBABILITY], place.mixture[SHARE] = p, share
    total = 2 * p
    for k in range(2):
        place.cells[k] = (place.context_hashes[k] * len(memory.last_weights) + node) % CORRECTION_SETS
        row = memory.corrections[k, place.cells[k]]
        total += row[point] * (1 - share) + row[point + 1] * share
    return min(max(total / 4, 1e-5), 1 - 1e-5)


def learn(memory: Memory, tree: CodeTree, place: Place, node: int, bit: int, rates: Rates) -> None:
    """Learn from the outcome of a decision after `predict`: weights, histories, match and corrections."""
    rate = rates.rate / (1 + rates.decay * math.sqrt(memory.position[STEPS] / 1000))
    error = bit - place.mixture[PROBABILITY]
    memory.last_weights[node] += LAST_RATE * rate * error * place.outputs
    for selector in range(SELECTORS):
        step = rate * (bit - squash(place.outputs[selector]))
        memory.weights[selector, place.sets[selector]] += step * place.inputs
    step = rate * (bit - squash(place.outputs[SELECTORS]))
    for k in range(INPUTS):
        memory.trusts[k, place.trust[k]] += step * place.inputs[k]
    point, share = place.cells[POINT], place.mixture[SHARE]
    for k in range(2):
        row = memory.corrections[k, place.cells[k]]
        row[point] += CORRECTION_RATE * (1 - share) * (bit - row[point])
        row[point + 1] += CORRECTION_RATE * share * (bit - row[point + 1])
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
        memory.matches[bucket] += MATCH_RATE * (continued - memory.matches[bucket])


def count_token(
    memory: Memory, tree: CodeTree, table: CharacterTable, place: Place, ids: ndarray, i: int, rates: Rates
) -> None:
    """Count ids[i] in the slots of all experts, and append it to the text. It changes `place.contexts`.

    The experts "new after order n" count a decision only where the context one character longer has not seen it. So
    they count in how many contexts something occurred, as Kneser and Ney's continuation counts do (ngram.py).
    """
    compute_contexts(ids, i, find_places(ids, i, table.kinds), table, place.contexts)
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
            if i >= delay:
                count_token(memory, tree, table, place, ids, i - delay, rates)
    if learns:
        for i in range(max(0, len(ids) - delay), len(ids)):
            count_token(memory, tree, table, place, ids, i, rates)


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
