"""The parts of byte-level BPE that are fixed before training: 256 tokens, one for each byte, and the split patterns.

GPT-2's files write a token as text with one character for each byte. A printable Latin-1 character stands for itself.
Each of the remaining bytes is written as one of the characters from U+0100 on. A blank, for example, is written "Ġ".
"""

# How a text is cut into pieces, which are roughly words. GPT-2's pattern is the one in its encoder.py. GPT-4's is
# tiktoken's cl100k_base without the possessive quantifiers: they do not change what it matches, and not every regex
# engine reads them in the same way.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s",
}

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]

# The first 256 tokens in GPT-2's order: the printable bytes come first.
BYTE_TOKENS = [bytes([byte]) for byte in [*_PRINTABLE, *sorted({*range(256)} - {*_PRINTABLE})]]
BYTE_CHARACTERS = [chr(byte) for byte in _PRINTABLE] + [chr(0x100 + i) for i in range(256 - len(_PRINTABLE))]

_BYTE_TO_CHARACTER = {token[0]: character for token, character in zip(BYTE_TOKENS, BYTE_CHARACTERS, strict=True)}
_CHARACTER_TO_BYTE = {character: byte for byte, character in _BYTE_TO_CHARACTER.items()}


def token_to_text(token: bytes) -> str:
    """Return a token as GPT-2's files write it.

    >>> token_to_text(b" the")
    'Ġthe'
    """
    return "".join([_BYTE_TO_CHARACTER[byte] for byte in token])


def text_to_token(text: str) -> bytes:
    """Return the token that GPT-2's files write as `text`. Raise KeyError for a character that stands for no byte."""
    return bytes([_CHARACTER_TO_BYTE[character] for character in text])
