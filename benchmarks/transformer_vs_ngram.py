"""Train a larger transformer on one core and print when its loss passes that of the n-gram model.

    python benchmarks/transformer_vs_ngram.py --data input.txt --minutes 45

Trains `GPTLanguageModel` (6 blocks, 192 wide, 128 characters of context) in bfloat16 on one thread, with a warmup
and a cosine decay to zero. The clock counts the processor time of training only. Prints the exact validation loss,
the losses of the n-gram models, and at the end that of a blend, whose weight is fitted on the first fiftieth of the
training text. Neither model trains on that part. `--save` keeps the weights.
"""

import argparse
import math
import time

import safetensors.torch
import torch

from minigpt.config import Config
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.model import count_parameters
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.loss import compute_exact_loss, compute_token_losses
from minigpt.model.ngram import NGramModel
from minigpt.studies.ladder.blend import blend_losses, find_best_weight
from minigpt.studies.ladder.ngram_comparison import fit_best_ngram, hold_out
from minigpt.tokenizers.char import CharTokenizer

SHAPE = {"n_embd": 192, "n_head": 6, "n_layer": 6, "block_size": 128, "dropout": 0.1, "batch_size": 16}
PEAK, WARMUP, ROWS = 1e-3, 0.02, 15


def main() -> None:
    """Train for the given minutes and print a row after every fifteenth of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--minutes", type=float, default=45, help="minutes of processor time")
    parser.add_argument("--save", help="safetensors file for the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1337)
    text = find_corpus(arguments.data).text
    tokenizer = CharTokenizer.from_text(text)
    config = Config().override(vocab_size=tokenizer.vocab_size, **SHAPE)
    dataset = Dataset(tokenizer.encode(text), config)
    dataset.train, held_out = hold_out(dataset.train, config.model.block_size)
    for order in (6, 7, 8):
        loss = NGramModel.fit(dataset.train, tokenizer.vocab_size, order).token_losses(dataset.val).mean()
        print(f"n-gram of order {order}: {loss:.4f}", flush=True)
    model = GPTLanguageModel(config.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    print(f"\n{count_parameters(model):,} parameters\n\n| minutes | steps | loss |\n| --- | --- | --- |")
    spent, step, row = 0.0, 0, 1
    while spent < 1:
        start = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(spent / WARMUP, 0.5 + 0.5 * math.cos(math.pi * spent))
        x, y = dataset.get_batch("train")
        with torch.autocast("cpu", torch.bfloat16):
            _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        spent += (time.process_time() - start) / 60 / arguments.minutes
        if spent >= row / ROWS:
            row += 1
            measured = compute_exact_loss(model, dataset.val)
            print(f"| {spent * arguments.minutes:.1f} | {step:,} | {measured:.4f} |", flush=True)
            if arguments.save:
                safetensors.torch.save_file(model.state_dict(), arguments.save)
    ngram = fit_best_ngram(dataset.train, held_out, tokenizer.vocab_size)
    weight = find_best_weight(compute_token_losses(model, held_out).double(), ngram.token_losses(held_out))
    loss = blend_losses(
        compute_token_losses(model, dataset.val).double(), ngram.token_losses(dataset.val), weight
    ).mean()
    print(f"\nblended with the n-gram model of order {ngram.config.order}, w = {weight:.3f}: {loss:.4f}")


if __name__ == "__main__":
    main()
