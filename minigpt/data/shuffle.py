"""A shuffled order of any length that takes no memory: each place's number is computed, not looked up.

Numbers of 2k bits are mixed by a Feistel network, which maps them onto one another whatever its round function is: the
two halves take turns in changing each other. Of the 4^k numbers only those below n are wanted; a number that lands
outside goes through the network again until it is inside ("cycle walking", Black and Rogaway 2002). So each of the n
numbers comes up exactly once.
"""

import numpy as np

ROUNDS = 6
MULTIPLIERS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)  # splitmix64's


def _mix(x: np.ndarray) -> np.ndarray:
    """Each 64-bit number to another that looks random: the end of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))


class RandomPermutation:
    """The numbers 0 to n - 1 in an order that a seed decides.

    >>> sorted(Shuffled(5, seed=1)[np.arange(5)].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, seed: int | list[int]) -> None:
        self.n = n
        self.half = np.uint64(max(1, (max(1, n - 1).bit_length() + 1) // 2))  # bits of each half
        rng = np.random.default_rng(seed)
        self.keys = rng.integers(2**64, size=ROUNDS, dtype=np.uint64)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The numbers at those places, all of them below n: int64, of the same shape."""
        numbers = self._walked(places.astype(np.uint64))
        outside = numbers >= self.n
        while outside.any():
            numbers[outside] = self._walked(numbers[outside])
            outside = numbers >= self.n
        return numbers.astype(np.int64)

    def _walked(self, numbers: np.ndarray) -> np.ndarray:
        """Once through the network."""
        mask = (np.uint64(1) << self.half) - np.uint64(1)
        left, right = numbers >> self.half, numbers & mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        return (left << self.half) | right
