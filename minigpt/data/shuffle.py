"""A random permutation of any length that takes no memory: each number is computed, not looked up.

A Feistel network permutes the numbers of 2k bits. In each round one half of the bits changes the other half. Each round
can be undone, so no two numbers map to the same one. Only the numbers below n are wanted. A result of n or more goes
through the network again until it is below n ("cycle walking", Black and Rogaway 2002). So each of the n numbers occurs
exactly once.
"""

import numpy as np

_ROUNDS = 6
_MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)  # splitmix64's


class RandomPermutation:
    """The numbers 0 to n - 1 in a random order.

    >>> sorted(RandomPermutation(5, seed=1)[np.arange(5)].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, seed: int | list[int]) -> None:
        """Choose the order: the same n and seed give the same one."""
        self.n = n
        self._half_bits = np.uint64(max(1, (max(1, n - 1).bit_length() + 1) // 2))  # k
        rng = np.random.default_rng(seed)
        self._keys = rng.integers(2**64, size=_ROUNDS, dtype=np.uint64)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """Return the numbers at given places, which are all below n: int64, of the same shape."""
        numbers = self._apply_rounds(places.astype(np.uint64))
        outside = numbers >= self.n
        while outside.any():
            numbers[outside] = self._apply_rounds(numbers[outside])
            outside = numbers >= self.n
        return numbers.astype(np.int64)

    def _apply_rounds(self, numbers: np.ndarray) -> np.ndarray:
        mask = (np.uint64(1) << self._half_bits) - np.uint64(1)
        left, right = numbers >> self._half_bits, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        return (left << self._half_bits) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """Map each 64-bit number to another that looks random: the last steps of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))
