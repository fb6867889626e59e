"""One exact loss is one figure: what is printed is what run.json has, and nothing that does not compare."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import fault_injection
import pytest
from conftest import TINY, make_text

import minigpt
from minigpt.cli.output import format_loss
from minigpt.data.prepare import PrepareSettings, prepare_corpus
from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.run import Run


def train_on_documents(folder: Path, texts: list[str], **settings: object) -> Run:
    """Prepare documents, and train a run on them."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "documents.jsonl").write_text(lines, encoding="utf-8", errors="surrogatepass")
    prepare_corpus(
        [folder / "documents.jsonl"], folder / "data", PrepareSettings(**settings), fault_injection.SilentProgress(), 1
    )
    return minigpt.train(data=folder / "data", out=folder / "run", device="cpu", **TINY)


def make_documents() -> list[str]:
    text = make_text(30_000)
    return [text[i : i + 100] for i in range(0, len(text), 100)]


def test_the_printed_bits_of_documents_are_those_of_the_record(tmp_path: Path, command: Callable) -> None:
    run = train_on_documents(tmp_path, make_documents())
    bits = run.info.bits_per_character
    assert bits > run.info.validation_loss / 0.6931471805599453 + 0.01  # the tokens between documents cost bits too
    printed = f"nats per token (exact; {bits:.4f} bits per character of the text, perplexity"
    assert printed in format_loss("loss", run.info.validation_loss, run.config, run.info)
    assert printed in command("eval", run.path).stdout
    assert json.loads(command("eval", run.path, "--json").stdout)["bits_per_character"] == pytest.approx(bits)


@pytest.mark.parametrize(
    "settings", [{"min_count": 1000}, {"errors": "replace"}, {"errors": "replace", "tokenizer": "bpe"}]
)
def test_a_text_with_replaced_characters_has_no_bits_per_byte(
    settings: dict, tmp_path: Path, command: Callable
) -> None:
    texts = make_documents()
    if "errors" in settings:
        texts = [f"{text}\ud800" for text in texts]
    if "tokenizer" in settings:
        settings = {**settings, "vocab_size": 300}
    run = train_on_documents(tmp_path, texts, **settings)
    assert run.info.bits_per_byte is run.info.bits_per_character is None
    assert run.evaluate().bits_per_byte is None
    printed = command("eval", run.path).stdout
    assert "nats per token (exact; perplexity" in printed
    assert "bits" not in printed


def test_the_progress_has_the_loss_of_what_is_measured_so_far(trained: Run, tmp_path: Path) -> None:
    text = make_text(20_000, seed=5)
    (tmp_path / "other.txt").write_text(text)
    seen: list[ExactLoss] = []
    exact = trained.evaluate(tmp_path / "other.txt", on_progress=seen.append)
    assert seen[-1] == exact
    assert exact.loss == pytest.approx(trained.loss(text), rel=1e-6)
    assert (exact.predictions, exact.characters) == (len(text) - 1, len(text))
    counts = [part.predictions for part in seen]
    assert counts == sorted(set(counts))
    assert len(counts) > 3
    assert {part.possible_predictions for part in seen} == {len(text) - 1}
    for part in seen:
        assert part.loss == pytest.approx(exact.loss, abs=0.05)
        assert part.bits_per_character == pytest.approx(part.loss / math.log(2))
        assert part.characters == part.predictions + 1


def test_at_most_so_many_predictions_are_made(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(make_text(20_000, seed=5))
    part = trained.evaluate(tmp_path / "other.txt", max_predictions=5000)
    assert part.predictions == 5000 // trained.config.model.block_size * trained.config.model.block_size
    assert part.possible_predictions == len(make_text(20_000, seed=5)) - 1
