"""Load the server of `minigpt serve`: many clients at once, for a while, on this machine only.

    python benchmarks/serving.py --clients 200 --seconds 30

Trains a small model, serves it by the real command, and measures the time to the first token of a single client. Then
each of the clients asks for a streamed text again and again. Every request must be answered to its end, or refused with
503. The command prints how many were, the times to the first token, and the server's memory and open files before the
load, after it, and after a second load of the same size. It exits with 1 if a request had any other end, or if files
stay open.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from processor import describe_processor
from startup import write_text

TOKEN = "a-token-for-the-benchmark"
PROGRAM = str(Path(sys.executable).with_name("minigpt"))
TOKENS = 64  # of each text
SINGLE_REQUESTS = 20
REFUSED = 503


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        ends: how many requests had which end.
        first_token: seconds from each request to its first token.
    """

    ends: Counter[str] = field(default_factory=Counter)
    first_token: list[float] = field(default_factory=list)


async def ask(client: httpx.AsyncClient, seed: int, load: Load) -> None:
    """Send one request, and note its end."""
    fields = {"model": "served", "prompt": "the ", "max_tokens": TOKENS, "seed": seed, "stream": True}
    start, last = time.perf_counter(), ""
    try:
        async with client.stream("POST", "/v1/completions", json=fields) as answer:
            if answer.status_code == REFUSED:
                await answer.aread()
                load.ends["refused with 503"] += 1
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                return
            async for line in answer.aiter_lines():
                if line and not last:
                    load.first_token.append(time.perf_counter() - start)
                last = line or last
    except httpx.HTTPError as error:
        load.ends[f"failed: {type(error).__name__}"] += 1
        return
    load.ends["answered" if last == "data: [DONE]" else f"status {answer.status_code}"] += 1


async def run_clients(url: str, clients: int, seconds: float) -> Load:
    """Let several clients send requests one after another, for some seconds."""
    load, end = Load(), time.monotonic() + seconds

    async def run_client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
            while time.monotonic() < end:
                await ask(client, number, load)

    await asyncio.gather(*(run_client(number) for number in range(clients)))
    return load


async def run_one_client(url: str) -> Load:
    """Send requests one after another."""
    load = Load()
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
        for number in range(SINGLE_REQUESTS):
            await ask(client, number, load)
    return load


def measure_process(pid: int) -> tuple[float, int]:
    """Return a process's memory in MB (resident), and the number of its open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def format_times(seconds: list[float]) -> str:
    """Return the median and the 95th percentile in milliseconds."""
    if len(seconds) < 2:
        return "no first token"
    slow = statistics.quantiles(seconds, n=20)[-1]
    return f"median {1000 * statistics.median(seconds):.0f} ms, 95th percentile {1000 * slow:.0f} ms"


def main() -> int:
    """Serve, load, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of the two loads")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt")
        train = ["train", "--data", "text.txt", "--out", "served", "--max-iters", "20", "--eval-interval", "20"]
        subprocess.run([PROGRAM, *train], check=True, cwd=folder, capture_output=True)
        serve = [PROGRAM, "serve", "served", "--no-open", "--port", "0"]
        environment = {**os.environ, "MINIGPT_TOKEN": TOKEN}
        with subprocess.Popen(serve, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as server:
            try:
                return measure_server(server, arguments.clients, arguments.seconds)
            finally:
                server.send_signal(signal.SIGTERM)


def measure_server(server: subprocess.Popen, clients: int, seconds: float) -> int:
    """Load a server that has just been started, print what happened, and return the exit status."""
    assert server.stdout
    url = server.stdout.readline().partition("#")[0]
    print(describe_processor())
    single = asyncio.run(run_one_client(url))
    print(f"one client, {TOKENS} tokens a request: time to the first token {format_times(single.first_token)}")
    before = measure_process(server.pid)
    loads, states = [], [before]
    for _ in range(2):
        loads.append(asyncio.run(run_clients(url, clients, seconds)))
        asyncio.run(run_one_client(url))  # after it, every connection of the load has been closed
        states.append(measure_process(server.pid))
    for load in loads:
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(load.ends.items()))
        print(f"{clients} clients for {seconds:g} s: {ends}; time to the first token {format_times(load.first_token)}")
    for when, (memory, files) in zip(("before the loads", "after the first", "after the second"), states, strict=True):
        print(f"{when}: {memory:.0f} MB, {files} open files")
    has_failed = any(set(load.ends) - {"answered", "refused with 503"} for load in loads)
    return int(has_failed or states[-1][1] > before[1])


if __name__ == "__main__":
    sys.exit(main())
