"""A Huffman code: each character is a path of decisions through a binary tree."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray


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
