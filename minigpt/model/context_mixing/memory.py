"""What a context-mixing model remembers, and what it knows of the place in the text where it predicts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from minigpt.model.context_mixing.contexts import EXPERTS

N_EXPERTS = len(EXPERTS)
HISTORY_BITS = 10  # a history of up to 9 decisions, after a leading 1
INPUTS = 2 * N_EXPERTS + 3  # two an expert, two of the match, and a constant
SELECTORS = 7
WEIGHT_SETS = 2**13  # of each selector
CORRECTION_SETS = 2**16
CORRECTION_POINTS = 33  # from -8 to 8
MATCH_SLOTS = 2**20
MATCH_BUCKETS = 20
MAX_COUNT = 255
SLOT = np.dtype([("check", "u1"), ("count", "u1"), ("history", "u2"), ("p", "f4")])  # of one context and decision
PROBES = 4  # slots where a context may lie
SLOTS_PER_CHARACTER = 64
MAX_SLOT_BITS = 26

_lengths = np.array([h.bit_length() - 1 for h in range(2**HISTORY_BITS)])
_ones = np.array([max(0, h.bit_count() - 1) for h in range(2**HISTORY_BITS)])
HAS_ONE_OUTCOME = (_ones == 0) | (_ones == _lengths)  # of a history: all its decisions were the same
CONFIDENCE = np.array(  # of a count: 0 to 5, then one step each time it doubles
    [count if count <= 5 else 5 + math.ceil(math.log2(count / 5)) for count in range(MAX_COUNT + 1)]
)
CONFIDENCES = 2 * (int(CONFIDENCE.max()) + 1)


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
        position: the number of characters in `text`, and of those that the weights learned from, (2,).
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
        cells: of `Memory.corrections`: the set of each of the two tables, and the point below the mixture, (3,).
        mixture: the mixture's probability, and how far it is on the way to the next point, (2,).
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
    cells: ndarray
    mixture: ndarray


POINTER, LENGTH, PREDICTED = range(3)  # of Place.match
POINT = 2  # of Place.cells
PROBABILITY, SHARE = range(2)  # of Place.mixture


def create_memory(vocab_size: int, length: int, start_weight: float) -> Memory:
    """Return the memory before the first character of a text of `length` characters."""
    slots = 2 ** min(max(math.ceil(math.log2(max(1, SLOTS_PER_CHARACTER * length))), 12), MAX_SLOT_BITS)
    nodes = max(1, vocab_size - 1)
    histories = np.tile((_ones + 0.4) / (_lengths + 0.8), (N_EXPERTS, 1))
    points = 1 / (1 + np.exp(-(np.arange(CORRECTION_POINTS) / 2 - 8)))
    return Memory(
        slots=np.zeros(slots, dtype=SLOT),
        histories=histories,
        history_counts=np.zeros(histories.shape, dtype=np.int64),
        matches=np.full(MATCH_BUCKETS, 0.9),
        weights=np.full((SELECTORS, WEIGHT_SETS, INPUTS), start_weight),
        trusts=np.full((INPUTS, CONFIDENCES), start_weight),
        last_weights=np.full((nodes, SELECTORS + 1), 1 / (SELECTORS + 1)),
        corrections=np.tile(points, (2, CORRECTION_SETS, 1)),
        text=np.zeros(0, dtype=np.int32),
        match_table=np.zeros(MATCH_SLOTS, dtype=np.int64),
        position=np.zeros(2, dtype=np.int64),
    )


def create_place(left_out: Sequence[str]) -> Place:
    """Return the arrays to work in."""
    return Place(
        speaks=np.array([name not in left_out for name in EXPERTS]),
        contexts=np.zeros(N_EXPERTS, dtype=np.int64),
        selected=np.zeros(SELECTORS, dtype=np.int64),
        context_hashes=np.zeros(2, dtype=np.int64),
        match=np.zeros(3, dtype=np.int64),
        found=np.zeros(N_EXPERTS, dtype=np.int64),
        inputs=np.zeros(INPUTS),
        trust=np.zeros(INPUTS, dtype=np.int64),
        sets=np.zeros(SELECTORS, dtype=np.int64),
        outputs=np.zeros(SELECTORS + 1),
        cells=np.zeros(3, dtype=np.int64),
        mixture=np.zeros(2),
    )


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
