"""Small tasks with one right answer each, made of words: so what a model has learned can be counted.

Words never seen in training are kept for the test: which they are the SHA-256 of each decides.
"""

import random
import re
from collections.abc import Callable, Sequence

from minigpt.errors import ConfigError, DataError, nearest
from minigpt.finetuning.instructions import Example
from minigpt.text.passages import share

WORD = re.compile(r"[a-z]{2,12}")
HELD_OUT = 0.1  # share of the words
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST = 4  # letters that the longest words have at least


def of_a_word(name: str, answer: Callable[[str], str]) -> Callable[[str, random.Random], tuple[str, str]]:
    """A task that asks for something about a word."""
    return lambda word, rng: (f"{name}: {word}", answer(word))


def add(word: str, rng: random.Random) -> tuple[str, str]:
    """The sum of two numbers of up to three digits; which they are, the word decides, so that it can be held out."""
    own = random.Random(word)
    a, b = own.randrange(1000), own.randrange(1000)
    return f"add: {a} {b}", f"{a + b}"


TASKS: dict[str, Callable[[str, random.Random], tuple[str, str]]] = {
    "upper": of_a_word("upper", str.upper),
    "first": of_a_word("first letter", lambda word: word[0]),
    "last": of_a_word("last letter", lambda word: word[-1]),
    "count": of_a_word("count letters", lambda word: str(len(word))),
    "reverse": of_a_word("reverse", lambda word: word[::-1]),
    "sort": of_a_word("sort letters", lambda word: "".join(sorted(word))),
    "add": add,
}


def require_tasks(names: Sequence[str]) -> None:
    """Raise ConfigError for a name that is no task."""
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"there is no task {name!r}{nearest(name, TASKS) or ': choose from ' + ', '.join(TASKS)}")


def words_of(text: str, longest: int, seed: int) -> tuple[list[str], list[str]]:
    """The words of a text, and as many made-up ones, of up to `longest` letters: to learn from, and held out."""
    if longest < SHORTEST:
        raise DataError("the model sees too little at once for tasks on words: take one with a larger block_size")
    words = {word for word in WORD.findall(text.lower()) if len(word) <= longest}
    rng = random.Random(seed)
    words |= {"".join(rng.choices(LETTERS, k=rng.randint(2, longest))) for _ in range(max(len(words), 2000))}
    known = sorted(word for word in words if not held_out(word))
    return known, sorted(words.difference(known))


def held_out(word: str) -> bool:
    """Whether the word is kept for the test."""
    return share(word) < HELD_OUT


def examples_of(tasks: Sequence[str], words: Sequence[str], count: int, seed: int) -> dict[str, list[Example]]:
    """`count` examples of each task, on random words of these."""
    rng = random.Random(seed)
    return {name: [Example.of(*TASKS[name](rng.choice(words), rng)) for _ in range(count)] for name in tasks}
