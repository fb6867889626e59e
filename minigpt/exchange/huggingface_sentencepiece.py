"""A SentencePiece model as the tokenizer.json of Hugging Face's tokenizers."""

import json
from typing import Any

from minigpt.tokenizers.sentencepiece import Piece, SentencePieceTokenizer

_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_SCORE = -1e6  # a byte's piece has it, so that the text "<0x0A>" is not read as that byte
_SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def format_sentencepiece(tokenizer: SentencePieceTokenizer) -> bytes:
    """Return the content of a tokenizer.json that gives the ids of a SentencePiece model.

    A blank is U+2581 in it, and a character without a piece is written as its bytes, as in SentencePiece.
    """
    pieces = tokenizer.list_pieces()
    build = _build_unigram if tokenizer.method == "unigram" else _build_bpe
    special = [{"id": i, "content": piece.text, **_SPECIAL} for i, piece in enumerate(pieces) if _is_special(piece)]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _BLANK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": build(pieces),
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def _is_special(piece: Piece) -> bool:
    return piece.kind in ("control", "unknown")


def _build_unigram(pieces: list[Piece]) -> dict[str, Any]:
    """Return the model of kind Unigram."""
    unknown = next((i for i, piece in enumerate(pieces) if piece.kind == "unknown"), None)
    vocab = [[piece.text, _BYTE_SCORE if piece.kind == "byte" else piece.score] for piece in pieces]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": True}


def _build_bpe(pieces: list[Piece]) -> dict[str, Any]:
    """Return the model of kind BPE.

    SentencePiece merges two neighbours if together they are a piece, those with the best score first. So a piece has a
    merge for each way to cut it into two pieces.
    """
    texts = {piece.text for piece in pieces if piece.kind == "text"}
    ordered = sorted((piece for piece in pieces if piece.kind == "text"), key=lambda piece: -piece.score)
    merges = [
        [piece.text[:cut], piece.text[cut:]]
        for piece in ordered
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in texts and piece.text[cut:] in texts
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next((piece.text for piece in pieces if piece.kind == "unknown"), None),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {piece.text: i for i, piece in enumerate(pieces)},
        "merges": merges,
    }
