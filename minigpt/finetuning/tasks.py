"""Small tasks with one right answer each, made from any text, so that accuracy can be measured.

Two word tasks make a third: "reverse+upper" applies both in turn, and its answer has both results, "noom, NOOM". Test
examples are held out: a tenth of the words and of the sums, chosen by the SHA-256 of each, and the last tenth of a
play's dialogue. No test prompt occurs twice, or in the training.
"""

import itertools
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from minigpt.data.document_split import hash_to_fraction
from minigpt.errors import ConfigError, DataError, suggest_name
from minigpt.finetuning.examples import Example

WORD = re.compile(r"[a-z]{2,12}")
SPEECH = re.compile(r"^([A-Z][A-Za-z' ]{0,30}):\n((?:.+\n?)+)", re.MULTILINE)
HELD_OUT = 0.1  # share of the words, of the sums and of the dialogue
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MIN_LONGEST_WORD, MAX_WORD = 4, 12  # letters
MIN_RANDOM_WORDS = 2000
SPECIAL_TOKENS = 3  # an example's sequence has these beside its prompt and its answer
EXAMPLES = {"add": 40_000, "reverse": 40_000, "sort": 60_000, "upper": 20_000, "pairs": 240_000}  # enough to learn it
DEFAULT_EXAMPLES = 10_000
CASES: tuple[Callable[[str], str], ...] = (str, str, str.title, str.upper, str.upper)  # two of five words in capitals
MAX_TRIES = 1000  # draws until an example fits into block_size
TRIES_PER_TEST_EXAMPLE = 20  # draws until a test prompt is new
PromptAnswer = tuple[str, str]


@dataclass(frozen=True)
class TaskSource:
    """What examples are made of.

    Attributes:
        words: words of small letters.
        speeches: speakers and what they say, in order; empty for a text that is not a play.
        is_held_out: True for test examples.
        max_characters: characters that a prompt and its answer can have together.
        excluded_pairs: pairs of word tasks that "pairs" never draws.
    """

    words: Sequence[str]
    speeches: Sequence[tuple[str, str]]
    is_held_out: bool
    max_characters: int
    excluded_pairs: frozenset[frozenset[str]] = frozenset()


DrawExample = Callable[[TaskSource, random.Random], PromptAnswer]

WORD_TO_WORD: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word, key=str.lower)),
    "rest": lambda word: word[1:],
    "start": lambda word: word[:-1],
    "swap": lambda word: word[-1] + word[1:-1] + word[0],
}
WORD_TASKS: dict[str, Callable[[str], str]] = {
    **WORD_TO_WORD,
    "first": lambda word: word[0],
    "last": lambda word: word[-1],
    "count": lambda word: str(len(word)),
}
PAIRS = [f"{one}+{other}" for one, other in itertools.permutations(WORD_TASKS, 2) if one in WORD_TO_WORD]

STYLES: dict[str, Callable[[str], str]] = {
    "loudly": lambda words: words.upper() + "!",
    "as a title": str.title,
    "slowly": lambda words: words.replace(" ", "... "),
    "as a question": lambda words: words.capitalize() + "?",
}


def _make_word_task(name: str) -> DrawExample:
    """Return the task of that name, one word task or two in turn."""
    steps = name.split("+")

    def draw(source: TaskSource, rng: random.Random) -> PromptAnswer:
        word = rng.choice(CASES)(rng.choice(source.words))
        results = itertools.accumulate(steps, lambda text, step: WORD_TASKS[step](text), initial=word)
        return f"{', '.join(steps)}: {word}", ", ".join(itertools.islice(results, 1, None))

    return draw


def _draw_pair(source: TaskSource, rng: random.Random) -> PromptAnswer:
    """Apply any two word tasks in turn."""
    pairs = [pair for pair in PAIRS if frozenset(pair.split("+")) not in source.excluded_pairs]
    return _make_word_task(rng.choice(pairs))(source, rng)


def _draw_sum(source: TaskSource, rng: random.Random) -> PromptAnswer:
    """Add two numbers of three digits as on paper: the last digits, the last two, then all."""
    while True:
        a, b = rng.randrange(100, 1000), rng.randrange(100, 1000)
        if is_held_out(f"{min(a, b)} {max(a, b)}") == source.is_held_out:  # a + b and b + a are one sum
            return f"add: {a} {b}", ", ".join(str(a % power + b % power) for power in (10, 100, 1000))


def _draw_styled_words(source: TaskSource, rng: random.Random) -> PromptAnswer:
    """Say a few words in a style."""
    name = rng.choice(list(STYLES))
    words = " ".join(rng.choices(source.words, k=rng.randint(1, 3)))
    return f"say {name}: {words}", STYLES[name](words)


def _draw_next_speaker(source: TaskSource, rng: random.Random) -> PromptAnswer:
    """Name who speaks after the last three."""
    start = rng.randrange(len(source.speeches) - 3)
    *last_three, (answer, _) = source.speeches[start : start + 4]
    return f"next: {', '.join(name for name, _ in last_three)}", answer


def _draw_rest_of_line(source: TaskSource, rng: random.Random) -> PromptAnswer:
    """Complete a line of a speech."""
    name, speech = rng.choice(source.speeches)
    words = rng.choice(speech.splitlines()).split()
    cut = rng.randint(1, max(1, len(words) - 1))
    return f"{name} says: {' '.join(words[:cut])}", " ".join(words[cut:])


TASKS: Mapping[str, DrawExample] = {
    **{name: _make_word_task(name) for name in [*WORD_TASKS, *PAIRS]},
    "pairs": _draw_pair,
    "add": _draw_sum,
    "style": _draw_styled_words,
    "who": _draw_next_speaker,
    "line": _draw_rest_of_line,
}


def require_tasks(tasks: Sequence[str], test_only: Sequence[str] = ()) -> None:
    """Raise ConfigError for an unknown task, and for a test-only task that is not a pair or is among `tasks`."""
    for name in [*tasks, *test_only]:
        if name not in TASKS:
            known = ", ".join(name for name in TASKS if "+" not in name)
            raise ConfigError(f"there is no task {name!r}{suggest_name(name, TASKS) or ': choose from ' + known}")
    learned = {frozenset(task.split("+")) for task in tasks}
    for name in test_only:
        if name not in PAIRS or frozenset(name.split("+")) in learned:
            raise ConfigError(
                f"{name!r} cannot be tested without being learned: name two word tasks that are not learned together, "
                "such as upper+reverse"
            )


def split_source(
    text: str, max_characters: int, seed: int, test_only: Sequence[str] = ()
) -> tuple[TaskSource, TaskSource]:
    """Split the words and the dialogue of a text, and as many random words, into training and test material.

    Args:
        text: any text; it may be empty.
        max_characters: characters that a prompt and its answer can have together.
        seed: for the random words.
        test_only: pairs of word tasks that are never learned, in either order.

    Raises:
        DataError: a prompt with a short word does not fit.
    """
    longest = min(MAX_WORD, (max_characters - len("reverse: ")) // 2)  # the word is in the prompt and in the answer
    if longest < MIN_LONGEST_WORD:
        raise DataError("block_size is too small for tasks on words: take a base with a larger block_size")
    words = {word for word in WORD.findall(text.lower()) if len(word) <= longest}
    rng = random.Random(seed)
    number = max(len(words), MIN_RANDOM_WORDS)
    words |= {"".join(rng.choices(LETTERS, k=rng.randint(2, longest))) for _ in range(number)}
    train_words = sorted(word for word in words if not is_held_out(word))
    test_words = sorted(words.difference(train_words))
    speeches = SPEECH.findall(text)
    cut = round(len(speeches) * (1 - HELD_OUT))
    excluded = frozenset(frozenset(pair.split("+")) for pair in test_only)
    return (
        TaskSource(train_words, speeches[:cut], False, max_characters, excluded),
        TaskSource(test_words, speeches[cut:], True, max_characters, excluded),
    )


def is_held_out(question: str) -> bool:
    """Return True for a word or a sum that is kept for the test."""
    return hash_to_fraction(question) < HELD_OUT


def make_examples(
    tasks: Sequence[str], source: TaskSource, number: int | None, seed: int, excluded: Collection[str] = ()
) -> dict[str, list[Example]]:
    """Return training examples of each task.

    Args:
        tasks: names of tasks.
        source: what the examples are made of.
        number: examples of each task; None for as many as it takes to learn it.
        seed: for the draws.
        excluded: prompts that are never drawn: those of the test.

    Raises:
        DataError: the text has nothing for a task, or nothing that the test leaves.
    """
    counts = {name: number or EXAMPLES.get(name, DEFAULT_EXAMPLES) for name in tasks}
    return {
        name: list(_draw_examples(name, source, count, random.Random(seed), excluded)) for name, count in counts.items()
    }


def make_test_examples(tasks: Sequence[str], source: TaskSource, number: int, seed: int) -> dict[str, list[Example]]:
    """Return test examples of each task; no prompt occurs twice in a task.

    Args:
        tasks: names of tasks.
        source: what the examples are made of.
        number: examples of each task. There are fewer if the source has no more.
        seed: for the draws.

    Raises:
        DataError: the text has nothing for a task.
    """
    return {name: _draw_distinct(name, source, number, random.Random(seed)) for name in tasks}


def _draw_distinct(task: str, source: TaskSource, number: int, rng: random.Random) -> list[Example]:
    """Draw at most `number` examples whose prompts are different."""
    found: dict[str, Example] = {}
    for example in _draw_examples(task, source, number * TRIES_PER_TEST_EXAMPLE, rng):
        [prompt] = example.questions
        found.setdefault(prompt, example)
        if len(found) == number:
            break
    return [*found.values()]


def _draw_examples(
    task: str, source: TaskSource, number: int, rng: random.Random, excluded: Collection[str] = ()
) -> Iterator[Example]:
    """Draw examples of a task that fit, and whose prompts are not excluded."""
    if task in ("who", "line") and len(source.speeches) < 4:
        raise DataError(
            f"task {task!r} needs a play, a name and a colon in a line above each speech: take another text"
        )
    for _ in range(number):
        for _ in range(MAX_TRIES):
            prompt, answer = TASKS[task](source, rng)
            if answer and len(prompt) + len(answer) <= source.max_characters and prompt not in excluded:
                yield Example.from_pair(prompt, answer)
                break
        else:
            if excluded:
                raise DataError(f"the text has too few prompts for task {task!r} to learn some and test with others")
            raise DataError(
                f"the questions of task {task!r} are longer than block_size: take a base with a larger block_size"
            )
