"""A folder of runs of several kinds, hostile ones among them, for the tests of the playground's page."""

import shutil
from pathlib import Path

from answer_training import train_to_answer
from random_runs import make_random_run

import minigpt
from minigpt.runs.run import Run
from minigpt.tokenizers.added_tokens import AddedToken
from minigpt.tokenizers.bpe import BPETokenizer

HOSTILE_NAME = "<img src=x onerror=alert(1)>\u202etxt"
HOSTILE_TOKENS = ("<script>alert(1)</script>", "\u202e", "\u2066", "\u200b", "\u0301", "</span><b>")


def make_runs(folder: Path, trained: Run, text_file: Path) -> None:
    """Write the runs.

    Args:
        folder: where they go.
        trained: a run to copy: as `trained`, under a hostile name, and damaged, as `broken`.
        text_file: the text on which `bigram` is trained.
    """
    for name in ("trained", HOSTILE_NAME, "broken"):
        shutil.copytree(trained.path, folder / name)
    (folder / "broken" / "config.toml").write_text("[model]\nn_embd = 'wide'\n")
    minigpt.train("bigram", data=text_file, out=folder / "bigram", max_iters=20, eval_interval=20, snapshots=0)
    (folder / "examples").mkdir()
    answers = train_to_answer(trained, folder / "examples", "ab", 60).run
    shutil.move(answers.path, folder / "answers")
    shutil.rmtree(folder / "examples")
    added = [AddedToken(text, 256 + number, False) for number, text in enumerate(HOSTILE_TOKENS)]
    make_random_run(folder / "hostile tokens", BPETokenizer([], added_tokens=added))
    (folder / "hostile tokens" / "text.txt").unlink()  # the view of copied passages would need a longer text
