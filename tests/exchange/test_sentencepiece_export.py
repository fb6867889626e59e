"""A SentencePiece run in transformers: the fast tokenizer gives the run's ids, on real text and on rare characters."""

from pathlib import Path

import pytest
import torch
from lazy_module import LazyModule
from random_runs import make_random_run
from snippets import ROOT
from texts import PROSE
from tokenizers import Tokenizer

from minigpt.config import SamplingConfig
from minigpt.exchange.export import export_run
from minigpt.exchange.huggingface_tokenizer import format_tokenizer
from minigpt.generation import engine
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

transformers = LazyModule("transformers")

TEXTS = (  # the docs are real text
    *((ROOT / "docs" / name).read_text() for name in ("training.md", "results.md")),
    "  two  blanks\n\n\tand a tab ",
    "漢字 and 🤖, which have no pieces; <0x0A> is text",
    "",
)


@pytest.mark.parametrize("method", ["unigram", "bpe"])
@pytest.mark.parametrize("size", [450, 700])
def test_the_fast_tokenizer_gives_the_ids_of_the_model(method: str, size: int) -> None:
    ours = SentencePieceTokenizer.train(PROSE + TEXTS[0][:20_000], size, method, end_of_text=True)
    theirs = Tokenizer.from_str(format_tokenizer(ours).decode())
    assert theirs.get_vocab_size() == ours.vocab_size
    for text in TEXTS:
        # Not the whole text: SentencePiece adds up scores in float32, so near the end of a long text it takes pieces
        # that are hardly less probable than the best ones.
        for part in (text[:2000], *text.splitlines(keepends=True)):
            ids = ours.encode(part)
            assert theirs.encode(part).ids == ids
            assert theirs.decode(ids) == part


@pytest.mark.parametrize("method", ["unigram", "bpe"])
def test_transformers_writes_the_greedy_text_of_a_sentencepiece_run(method: str, tmp_path: Path) -> None:
    tokenizer = SentencePieceTokenizer.train(PROSE, 450, method, end_of_text=True)
    run = make_random_run(tmp_path / "run", tokenizer, block_size=64)
    result = export_run(run, "hf", tmp_path / "out")
    assert result.difference is not None
    assert result.difference < 1e-4
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert opened.eos_token == "<|endoftext|>"
    start = run.tokenizer.encode("The")
    greedy = engine.generate(run.model, torch.tensor([start]), SamplingConfig(max_new_tokens=60, temperature=0))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model.generation_config.eos_token_id = None  # the run does not stop at it either
    found = model.generate(torch.tensor([start]), do_sample=False, max_length=len(start) + 60)
    assert found[0, len(start) :].tolist() == greedy[0].tolist()
