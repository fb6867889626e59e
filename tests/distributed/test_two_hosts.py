"""Two hosts, each a network namespace of this machine with an address of its own, train one model by torchrun."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY_FLAGS

TORCHRUN = Path(sys.executable).with_name("torchrun")
SHORT = ["--max-iters", "4", "--eval-interval", "2", "--snapshots", "0"]
HOSTS = {"minigpt-a": "10.77.31.1", "minigpt-b": "10.77.31.2"}


def ip(*words: str) -> bool:
    """Whether that `ip` command can be had."""
    try:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Their names, with a cable between them; where the system lets nobody make any, the test is skipped."""
    first, second = HOSTS
    made = ip("netns", "add", first) and ip("netns", "add", second)
    made = made and ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
    for name, address in HOSTS.items():
        made = made and ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
        made = made and ip("-n", name, "link", "set", "cable", "up") and ip("-n", name, "link", "set", "lo", "up")
    if made:
        yield [first, second]
    for name in HOSTS:
        ip("netns", "del", name)
    if not made:
        pytest.skip("no network namespaces can be made here")


@pytest.mark.long
def test_two_hosts_train_one_run(hosts: list[str], text_file: Path, tmp_path: Path) -> None:
    started = []
    for n, host in enumerate(hosts):
        torchrun = f"{TORCHRUN} --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-id=night"
        torchrun += f" --rdzv-endpoint={HOSTS[hosts[0]]}:29400 --rdzv-conf=is_host={1 - n} --local-addr={HOSTS[host]}"
        command = ["ip", "netns", "exec", host, *torchrun.split(), "-m", "minigpt", "train", "--parallel", "fsdp"]
        started.append(
            subprocess.Popen(
                [*command, "--data", str(text_file), "--out", str(tmp_path / "run"), *TINY_FLAGS, *SHORT],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"},
            )
        )
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "fsdp in 2 processes" in said[0]
    assert "step" not in said[1], "only the first speaks"
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["status"], info["launch"]) == ("finished", "night")
    assert len(list((tmp_path / "run" / "checkpoints").glob("*/shards/*"))) == 4
