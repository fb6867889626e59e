"""Small tasks with one right answer each, made of any text: so what a model has learned can be counted.

Two of those on words make a third, "reverse+upper": one, then the other with what came of it, and the answer says both,
"noom, NOOM". What is held out for the test is never learned from: of words and sums a tenth, which of them the SHA-256
of each decides, of dialogue the end of the text.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from minigpt.data.document_split import share
from minigpt.errors import ConfigError, DataError, suggest_name
from minigpt.finetuning.sft_dataset import Example

WORD = re.compile(r"[a-z]{2,12}")
SPEECH = re.compile(r"^([A-Z][A-Za-z' ]{0,30}):\n((?:.+\n?)+)", re.MULTILINE)
HELD_OUT = 0.1  # share of the words, of the sums and of the text
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST, LONGEST = 4, 12  # letters that the longest words have at least, and at most
MARKS = 3  # tokens beside those of the prompt and of the answer
EXAMPLES = {"add": 40_000, "reverse": 40_000, "sort": 60_000, "upper": 20_000, "pairs": 240_000}  # to learn from …
USUALLY = 10_000  # … and of other tasks
CASES: tuple[Callable[[str], str], ...] = (str, str, str.title, str.upper, str.upper)  # how a word comes
TRIES = 1000  # at something that fits
Drawn = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """What examples are made of.

    Attributes:
        words: of small letters.
        speeches: who says what, in order; none in a text that is no play.
        held_out: whether it is for the test.
        room: characters that prompt and answer may have together.
    """

    words: Sequence[str]
    speeches: Sequence[tuple[str, str]]
    held_out: bool
    room: int
    without: frozenset[frozenset[str]] = frozenset()


def first(word: str) -> str:
    """Its first letter."""
    return word[0]


def last(word: str) -> str:
    """Its last letter."""
    return word[-1]


def count(word: str) -> str:
    """How many letters it has."""
    return str(len(word))


def reverse(word: str) -> str:
    """From its end to its beginning."""
    return word[::-1]


def sort(word: str) -> str:
    """Its letters in the order of the alphabet, whether large or small."""
    return "".join(sorted(word, key=str.lower))


def rest(word: str) -> str:
    """All but its first letter."""
    return word[1:]


def start(word: str) -> str:
    """All but its last letter."""
    return word[:-1]


def swap(word: str) -> str:
    """Its first and its last letter in each other's place."""
    return word[-1] + word[1:-1] + word[0]


WORD_TO_WORD: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "reverse": reverse,
    "sort": sort,
    "rest": rest,
    "start": start,
    "swap": swap,
}
OF_A_WORD: dict[str, Callable[[str], str]] = {**WORD_TO_WORD, "first": first, "last": last, "count": count}

STYLES: dict[str, Callable[[str], str]] = {
    "loudly": lambda words: words.upper() + "!",
    "as a title": str.title,
    "slowly": lambda words: words.replace(" ", "... "),
    "as a question": lambda words: words.capitalize() + "?",
}


def add(source: Source, rng: random.Random) -> Drawn:
    """The sum of two numbers of three digits, as on paper: that of the last digits, of the last two, and of all."""
    while True:
        a, b = rng.randrange(100, 1000), rng.randrange(100, 1000)
        if held_out(f"{a} {b}") == source.held_out:
            return f"add: {a} {b}", ", ".join(str(a % power + b % power) for power in (10, 100, 1000))


def style(source: Source, rng: random.Random) -> Drawn:
    """A few words, said in the style asked for."""
    name = rng.choice(list(STYLES))
    words = " ".join(rng.choices(source.words, k=rng.randint(1, 3)))
    return f"say {name}: {words}", STYLES[name](words)


def who(source: Source, rng: random.Random) -> Drawn:
    """Who speaks next, after the last three."""
    start = rng.randrange(len(source.speeches) - 3)
    *before, (answer, _) = source.speeches[start : start + 4]
    return f"next: {', '.join(name for name, _ in before)}", answer


def line(source: Source, rng: random.Random) -> Drawn:
    """The rest of a line of somebody's."""
    name, speech = rng.choice(source.speeches)
    words = rng.choice(speech.splitlines()).split()
    cut = rng.randint(1, max(1, len(words) - 1))
    return f"{name} says: {' '.join(words[:cut])}", " ".join(words[cut:])


def of_a_word(name: str) -> Callable[[Source, random.Random], Drawn]:
    """A task on a word, or two of them one after the other."""
    steps = name.split("+")

    def drawn(source: Source, rng: random.Random) -> Drawn:
        word = rng.choice(CASES)(rng.choice(source.words))
        answers = itertools.accumulate(steps, lambda before, step: OF_A_WORD[step](before), initial=word)
        return f"{', '.join(steps)}: {word}", ", ".join(itertools.islice(answers, 1, None))

    return drawn


PAIRS = [f"{one}+{other}" for one, other in itertools.permutations(OF_A_WORD, 2) if one in WORD_TO_WORD]


def pairs(source: Source, rng: random.Random) -> Drawn:
    """Any two tasks on a word, one after the other, but for those kept for the test."""
    return of_a_word(rng.choice([pair for pair in PAIRS if frozenset(pair.split("+")) not in source.without]))(
        source, rng
    )


TASKS: Mapping[str, Callable[[Source, random.Random], Drawn]] = {
    **{name: of_a_word(name) for name in [*OF_A_WORD, *PAIRS]},
    "pairs": pairs,
    "add": add,
    "style": style,
    "who": who,
    "line": line,
}


def require_tasks(tasks: Sequence[str], kept: Sequence[str] = ()) -> None:
    """Raise ConfigError for a name that is no task, and for one to be kept from learning that isn't of two."""
    for name in [*tasks, *kept]:
        if name not in TASKS:
            known = ", ".join(name for name in TASKS if "+" not in name)
            raise ConfigError(f"there is no task {name!r}{suggest_name(name, TASKS) or ': choose from ' + known}")
    for name in kept:
        learned = {frozenset(task.split("+")) for task in tasks}
        if name not in PAIRS or frozenset(name.split("+")) in learned:
            raise ConfigError(f"{name!r} cannot be asked without being learned: name two tasks, such as upper+reverse")


def sources_of(text: str, room: int, seed: int, kept: Sequence[str] = ()) -> tuple[Source, Source]:
    """What there is in a text, and as many made-up words, to learn from and held out."""
    longest = min(LONGEST, (room - len("reverse: ")) // 2)  # in its prompt and its answer
    if longest < SHORTEST:
        raise DataError("the model sees too little at once for tasks on words: take one with a larger block_size")
    words = {word for word in WORD.findall(text.lower()) if len(word) <= longest}
    rng = random.Random(seed)
    words |= {"".join(rng.choices(LETTERS, k=rng.randint(2, longest))) for _ in range(max(len(words), 2000))}
    known = sorted(word for word in words if not held_out(word))
    speeches = SPEECH.findall(text)
    without = frozenset(frozenset(pair.split("+")) for pair in kept)
    cut = round(len(speeches) * (1 - HELD_OUT))
    return (
        Source(known, speeches[:cut], False, room, without),
        Source(sorted(words.difference(known)), speeches[cut:], True, room, without),
    )


def held_out(question: str) -> bool:
    """Whether it is kept for the test."""
    return share(question) < HELD_OUT


def examples_of(tasks: Sequence[str], source: Source, number: int | None, seed: int) -> dict[str, list[Example]]:
    """So many examples of each task, by default as many as it takes to learn it.

    Raises DataError for a task that the text has nothing for.
    """
    found = {}
    for name in tasks:
        count = number or EXAMPLES.get(name, USUALLY)
        found[name] = list(examples(name, source, count, random.Random(seed)))
    return found


def examples(task: str, source: Source, number: int, rng: random.Random) -> Iterator[Example]:
    """So many examples of a task that fit."""
    if task in ("who", "line") and len(source.speeches) < 4:
        raise DataError(
            f"task {task!r} needs a play, a name and a colon in a line above each speech: take another text"
        )
    for _ in range(number):
        for _ in range(TRIES):
            prompt, answer = TASKS[task](source, rng)
            if answer and len(prompt) + len(answer) <= source.room:
                yield Example.of(prompt, answer)
                break
        else:
            raise DataError(f"what task {task!r} asks is longer than the model sees: take one with a larger block_size")
