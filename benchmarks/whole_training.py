"""Time a whole training as a process: `minigpt train` against the lecture's script with its own evaluation.

    python benchmarks/whole_training.py --data input.txt --rounds 1

Both have the settings of the lecture preset and run in turns. The script is written here after the lecture: windows
stacked one by one, one module for each head, plain AdamW, and every hundred steps the mean loss of 200 random
batches of each split.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processor import describe_processor

SCRIPT = """
import sys
import torch
from minigpt.config import Config
from minigpt.model.lecture import GPTLanguageModel

text = open(sys.argv[1]).read()
stoi = {c: i for i, c in enumerate(sorted(set(text)))}
data = torch.tensor([stoi[c] for c in text])
split = int(0.9 * len(data))
torch.manual_seed(1337)

def get_batch(name):
    ids = data[:split] if name == "train" else data[split:]
    ix = torch.randint(len(ids) - 32, (16,))
    return torch.stack([ids[i:i + 32] for i in ix]), torch.stack([ids[i + 1:i + 33] for i in ix])

@torch.no_grad()
def estimate_loss():
    model.eval()
    losses = {name: torch.stack([model(*get_batch(name))[1] for _ in range(200)]) for name in ("train", "val")}
    model.train()
    return {name: values.mean().item() for name, values in losses.items()}

model = GPTLanguageModel(Config().override(vocab_size=len(stoi)).model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
max_iters = int(sys.argv[2])
for step in range(max_iters):
    if step % 100 == 0 or step == max_iters - 1:
        print(step, estimate_loss())
    _, loss = model(*get_batch("train"))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
"""


def time_command(command: list[str]) -> float:
    """Return the wall time of a command in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print both medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the text")
    parser.add_argument("--max-iters", default="5000")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data = str(Path(arguments.data).resolve())
    times: dict[str, list[float]] = {"minigpt train": [], "the lecture's script": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            minigpt = shutil.which("minigpt", path=str(Path(sys.executable).parent)) or "minigpt"
            ours = [minigpt, "train", "--data", data, "--out", f"{folder}/run", "--max-iters", arguments.max_iters]
            times["minigpt train"].append(time_command(ours))
            script = Path(folder) / "script.py"
            script.write_text(SCRIPT)
            times["the lecture's script"].append(time_command([sys.executable, str(script), data, arguments.max_iters]))
    ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)]
    for name, taken in times.items():
        print(f"| {name} | {statistics.median(taken):.1f} s |")
    print(f"{describe_processor()}\n")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
