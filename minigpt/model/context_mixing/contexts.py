"""The contexts of the experts: for each expert, the part of the text that it looks at.

An expert counts what followed its context. Its context is a hash: two places in the text with the same hash are the
same to this expert. Most experts look at the last n characters (Cleary and Witten 1984, "Data Compression Using
Adaptive Coding and Partial String Matching"). The others look at words, at the speaker of a play, at the place in the
line, or at some of the last characters only (Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data
Compression").

The functions of this file are plain Python on NumPy arrays, in the part of Python that Numba compiles.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy import ndarray

LINE_END, SPACE, CAPITAL, LETTER, WORD_MARK, SENTENCE_END, OTHER = range(7)  # kinds of characters

MAX_ORDER = 9
CONTINUATION_ORDERS = 7
FOLDED_ORDERS = (3, 4, 5, 6)
EXPERTS = (
    *(f"order {n}" for n in range(MAX_ORDER + 1)),
    *(f"new after order {n + 1}" for n in range(1, CONTINUATION_ORDERS + 1)),
    *(f"order {n}, lower case" for n in FOLDED_ORDERS),
    *("order 12", "word", "word and gap", "word and the word before", "word and the two before"),
    *("word and the second word before", "word and the first of the line", "word and speaker", "speaker"),
    *("column", "the line above", "kinds of 12 characters", "kinds of 20 characters"),
    *("without the last character", "without the last two", "without the one before"),
)
# The number of the first expert of a kind, then the numbers of the others, in the order of EXPERTS.
CONTINUATIONS = MAX_ORDER + 1
_FOLDED = CONTINUATIONS + CONTINUATION_ORDERS
_ORDER_12, _WORD, _WORD_AND_GAP, _TWO_WORDS, _THREE_WORDS, *_others = range(_FOLDED + len(FOLDED_ORDERS), len(EXPERTS))
_SECOND_WORD, _FIRST_WORD, _WORD_AND_SPEAKER, _SPEAKER, _COLUMN, _LINE_ABOVE, *_others = _others
_KINDS_OF_12, _KINDS_OF_20, _WITHOUT_LAST, _WITHOUT_TWO, _WITHOUT_BEFORE = _others

LONGEST_WORD = 30
LONGEST_LINE = 80
LONGEST_SPEECH = 2000
_MULTIPLIER = 0x2545F4914F6CDD1D  # any odd number with an irregular pattern of bits
_MASK = 2**62 - 1


class CharacterTable(NamedTuple):
    """What the experts know about the characters of a vocabulary.

    Attributes:
        kinds: LINE_END, SPACE, CAPITAL and so on, (V,), int64.
        folded: the id of each character in lower case, (V,), int64.
    """

    kinds: ndarray
    folded: ndarray

    @classmethod
    def from_characters(cls, characters: Sequence[str]) -> Self:
        """Classify the characters of a vocabulary.

        Args:
            characters: the character of each id.
        """
        ids = {character: i for i, character in enumerate(characters)}
        kinds = np.array([_classify(character) for character in characters], dtype=np.int64)
        folded = np.array([ids.get(c.lower(), i) for i, c in enumerate(characters)], dtype=np.int64)
        return cls(kinds, folded)


def _classify(character: str) -> int:
    """Return the kind of a character."""
    if character in "\n\r":
        return LINE_END
    if character.isspace():
        return SPACE
    if character.isalpha():
        return CAPITAL if character != character.lower() else LETTER
    if character in "'’-":
        return WORD_MARK
    return SENTENCE_END if character in ".!?" else OTHER


class Places(NamedTuple):
    """Positions in the text before the predicted character. A word is a sequence of letters and word marks.

    Attributes:
        word: the start of the unfinished word; the predicted position itself where no word has begun.
        gap: the start of the characters between the word before and the unfinished word.
        previous_word: the start of the word before.
        second_word: the start of the word before that.
        line: the start of the line.
        previous_line: the start of the line before.
        speech: the start of the paragraph, which in a play is the line with the speaker's name.
    """

    word: int
    gap: int
    previous_word: int
    second_word: int
    line: int
    previous_line: int
    speech: int


def find_places(ids: ndarray, i: int, kinds: ndarray) -> Places:
    """Return the places in the text ids[:i].

    Args:
        ids: the text (N,).
        i: the position of the predicted character.
        kinds: of the characters, (V,).
    """
    word = _skip_back(ids, i, kinds, True)
    gap = _skip_back(ids, word, kinds, False)
    previous_word = _skip_back(ids, gap, kinds, True)
    second_word = _skip_back(ids, _skip_back(ids, previous_word, kinds, False), kinds, True)
    line = _find_line(ids, i, kinds)
    previous_line = _find_line(ids, line - 1, kinds) if line > 0 else 0
    speech = line
    while speech > 0 and i - speech < LONGEST_SPEECH and kinds[_get(ids, speech - 2)] != LINE_END:
        speech -= 1
        while speech > 0 and kinds[ids[speech - 1]] != LINE_END:
            speech -= 1
    return Places(word, gap, previous_word, second_word, line, previous_line, speech)


def _skip_back(ids: ndarray, end: int, kinds: ndarray, in_word: bool) -> int:
    """Return the start of the characters before `end` that are all part of a word, or all not."""
    start = end
    while start > 0 and end - start < LONGEST_WORD and (CAPITAL <= kinds[ids[start - 1]] <= WORD_MARK) == in_word:
        start -= 1
    return start


def _find_line(ids: ndarray, end: int, kinds: ndarray) -> int:
    """Return the start of the line with the character before `end`."""
    start = end
    while start > 0 and end - start < LONGEST_LINE and kinds[ids[start - 1]] != LINE_END:
        start -= 1
    return start


def compute_contexts(ids: ndarray, i: int, places: Places, table: CharacterTable, contexts: ndarray) -> None:
    """Compute the context of each expert for the prediction of ids[i].

    Args:
        ids: the text (N,). Only ids[:i] is read.
        i: the position of the predicted character.
        places: from `find_places`.
        table: of the vocabulary.
        contexts: the hashes (EXPERTS,), int64, are written here.
    """
    kinds, folded = table
    h = 0
    for n in range(MAX_ORDER + 1):  # the last n characters
        contexts[n] = h
        if 1 <= n <= CONTINUATION_ORDERS:  # these look at the same characters, but count less (count_token)
            contexts[CONTINUATIONS + n - 1] = h
        h = add_to_hash(h, _get(ids, i - 1 - n))
    contexts[_ORDER_12] = _hash_span(ids, i - 12, i)
    h = 0
    for n in range(1, FOLDED_ORDERS[-1] + 1):  # the last n characters, whether they are capitals or not
        h = add_to_hash(h, folded[_get(ids, i - n)])
        if n >= FOLDED_ORDERS[0]:
            contexts[_FOLDED + n - FOLDED_ORDERS[0]] = h
    # Words, without regard to capitals.
    word = _hash_word(ids, places.word, i, folded)
    previous = _hash_word(ids, places.previous_word, places.gap, folded)
    second = _hash_word(ids, places.second_word, places.previous_word, folded)
    first = _hash_word(ids, places.line, _skip_forward(ids, places.line, i, kinds), folded)
    contexts[_WORD] = word
    contexts[_WORD_AND_GAP] = add_to_hash(word, _hash_span(ids, places.gap, places.word))
    contexts[_TWO_WORDS] = add_to_hash(word, previous)
    contexts[_THREE_WORDS] = add_to_hash(add_to_hash(word, previous), second)
    contexts[_SECOND_WORD] = add_to_hash(word, second)
    contexts[_FIRST_WORD] = add_to_hash(word, first)
    # The form of a play: who speaks, and the place in the line.
    speaker = _hash_span(ids, places.speech, _find_line_end(ids, places.speech, i, kinds))
    column = i - places.line
    above = places.previous_line + column
    contexts[_WORD_AND_SPEAKER] = add_to_hash(word, speaker)
    contexts[_SPEAKER] = add_to_hash(contexts[2], speaker)
    contexts[_COLUMN] = add_to_hash(contexts[1], column)
    contexts[_LINE_ABOVE] = add_to_hash(contexts[2], ids[above] if above < places.line else -1)
    h = contexts[1]
    for n in range(1, 21):
        h = add_to_hash(h, kinds[_get(ids, i - n)])
        if n == 12:
            contexts[_KINDS_OF_12] = h
    contexts[_KINDS_OF_20] = h
    # Some of the last characters, so that a different character among them does not hide what is known.
    contexts[_WITHOUT_LAST] = _hash_span(ids, i - 4, i - 1)
    contexts[_WITHOUT_TWO] = _hash_span(ids, i - 5, i - 2)
    contexts[_WITHOUT_BEFORE] = add_to_hash(_hash_span(ids, i - 4, i - 2), _get(ids, i - 1))


def add_to_hash(h: int, value: int) -> int:
    """Return the hash of a sequence after one more value. Its upper bits are the well-mixed ones.

    The result is the same in Python's integers and in 64 bits with overflow, because only the lower bits are kept.
    """
    return ((int(h) + int(value) + 2) * _MULTIPLIER) & _MASK


def hash_last(ids: ndarray, i: int, n: int) -> int:
    """Return the context of the expert "order n" for the prediction of ids[i]."""
    h = 0
    for j in range(n):
        h = add_to_hash(h, _get(ids, i - 1 - j))
    return h


def _get(ids: ndarray, j: int) -> int:
    """Return ids[j], and the first character of the vocabulary before the start of the text."""
    return ids[j] if j >= 0 else 0


def _hash_span(ids: ndarray, start: int, end: int) -> int:
    """Return the hash of ids[start:end]."""
    h = 0
    for j in range(start, end):
        h = add_to_hash(h, _get(ids, j))
    return h


def _hash_word(ids: ndarray, start: int, end: int, folded: ndarray) -> int:
    """Return the hash of ids[start:end] in lower case."""
    h = 0
    for j in range(start, end):
        h = add_to_hash(h, folded[ids[j]])
    return h


def _skip_forward(ids: ndarray, start: int, end: int, kinds: ndarray) -> int:
    """Return the end of the word that starts at `start`, at most `end`."""
    while start < end and CAPITAL <= kinds[ids[start]] <= WORD_MARK:
        start += 1
    return start


def _find_line_end(ids: ndarray, start: int, end: int, kinds: ndarray) -> int:
    """Return the end of the line that starts at `start`, at most `end`."""
    while start < end and kinds[ids[start]] != LINE_END:
        start += 1
    return start
