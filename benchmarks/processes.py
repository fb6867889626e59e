"""Count the training steps per second of two processes on one thread each, against one process on one thread.

    python benchmarks/processes.py --rounds 5

The two processes share each batch; the one process has the whole batch. Efficiency is the speed of two processes
over twice the speed of one, in the same round: the median, and the range in parentheses.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

SHAPES = {  # B, T, C, H, L
    "lecture": (16, 32, 64, 4, 4),
    "128 wide": (32, 64, 128, 4, 4),
    "384 wide": (16, 256, 384, 6, 6),
}
WAYS = ("alone", "ddp", "fsdp")
SECONDS = 4.0  # after three steps to warm up
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def train(shape: str, way: str) -> None:
    """Train for a few seconds, in a process that this program started, and print the steps per second."""
    import torch
    from steps import make_step

    from minigpt.config import Config
    from minigpt.data.dataset import Dataset
    from minigpt.distributed.process_group import join_processes
    from minigpt.model import build

    torch.set_num_threads(1)
    B, T, C, H, L = SHAPES[shape]
    sharing = {} if way == "alone" else {"parallel": way}
    config = Config().override(batch_size=B, block_size=T, n_embd=C, n_head=H, n_layer=L, **sharing)
    ids = torch.randint(config.model.vocab_size, (100_000,), generator=torch.Generator().manual_seed(0))
    with join_processes() as processes:
        dataset = Dataset(ids, config, rank=processes.rank, world_size=processes.size)
        step = make_step(build(config.model).train(), config, dataset, processes)
        steps, start = -3, time.perf_counter()
        while steps <= 0 or not processes.any(time.perf_counter() - start > SECONDS):
            step()
            steps += 1
            if steps == 0:
                start = time.perf_counter()
        if processes.is_first:
            print(steps / (time.perf_counter() - start))


def measure_in_processes(shape: str, way: str) -> float:
    """Run `train` in new processes and return the steps per second."""
    start = [sys.executable] if way == "alone" else TORCHRUN
    command = [*start, __file__, "--shape", shape, "--way", way]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", choices=SHAPES, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        train(arguments.shape, arguments.way)
        return
    print("| (B, T, C, H, L) | one, steps/s | ddp | efficiency | fsdp | efficiency |")
    print("| --- | --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        rounds = [{way: measure_in_processes(shape, way) for way in WAYS} for _ in range(arguments.rounds)]
        cells = [f"{shape} {SHAPES[shape]}", f"{statistics.median(each['alone'] for each in rounds):.1f}"]
        for way in WAYS[1:]:
            shares = sorted(each[way] / (2 * each["alone"]) for each in rounds)
            cells.append(f"{statistics.median(each[way] for each in rounds):.1f}")
            cells.append(f"{statistics.median(shares):.0%} ({shares[0]:.0%} to {shares[-1]:.0%})")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
