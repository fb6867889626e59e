"""Train the rungs of the ladder at the small setting of the lecture, and compare with the losses the lecture shows.

    python benchmarks/ladder.py --data input.txt

The setting: 32 wide, 8 characters of context, batches of 32, 3 blocks, 5,000 steps at 1e-3. The lecture's losses
are estimates from random batches, read off its screen. A few hundredths are no difference.
"""

import argparse

import torch

from minigpt.config import Config
from minigpt.data.corpus import find_corpus
from minigpt.studies.ladder.experiment import LadderExperiment
from minigpt.studies.ladder.rungs import RUNGS
from minigpt.tokenizers.char import CharTokenizer

SMALL = {"n_embd": 32, "n_head": 4, "n_layer": 3, "block_size": 8, "batch_size": 32}
LECTURE = {5: 2.40, 6: 2.28, 7: 2.24, 9: 2.08, 10: 2.06}


def main() -> None:
    """Train the rungs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--max-iters", type=int, default=5000)
    arguments = parser.parse_args()
    text = find_corpus(arguments.data).text
    tokenizer = CharTokenizer.from_text(text)
    config = Config().override(vocab_size=tokenizer.vocab_size, max_iters=arguments.max_iters, **SMALL)
    experiment = LadderExperiment(config, torch.tensor(tokenizer.encode(text)), tokenizer)
    print("| rung | here (exact) | the lecture | seconds |\n| --- | --- | --- | --- |")
    for number in range(2, len(RUNGS)):
        result = experiment.measure_rung(number, RUNGS[number], config.training.seed)
        reported = f"{LECTURE[number]:.2f}" if number in LECTURE else ""
        print(f"| {number}. {result.name} | {result.loss:.4f} | {reported} | {result.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
