"""The number of CPUs: affinity mask and cgroup quotas."""

import math
import os
from pathlib import Path

import pytest
import torch
from cli_process import run_code

from minigpt.system.cpus import count_cpus, read_cpu_quota
from minigpt.system.device import limit_threads


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),  # a parent's
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "150000 100000\n"}, 1),
        ("4:memory:/x\n2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        (
            "3:cpuset:/\n2:cpu,cpuacct:/docker/ab12\n1:name=systemd:/\n0::/\n",  # the host's path, in a container
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "1000\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("nonsense\n", {"cpu.max": "nonsense\n"}, math.inf),
    ],
)
def test_the_quota_of_a_cgroup(groups: str, files: dict[str, str], quota: float, tmp_path: Path) -> None:
    mounted = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    assert read_cpu_quota(write_files(tmp_path, {"proc/self/cgroup": groups, **mounted})) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert read_cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cpus"), [("1000", 1), ("150000", 1), ("99900000", None)])
def test_the_smaller_of_quota_and_affinity_counts(quota: str, cpus: int | None, tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"}
    assert count_cpus(write_files(tmp_path, files)) == cpus or len(os.sched_getaffinity(0))


def test_the_affinity_mask_counts(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert count_cpus(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_threads_are_limited_to_the_cpus_unless_the_user_chose_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS")
        for cpus in (1, 2):
            with limit_threads(2**20, cpus=cpus) as threads:
                assert threads == torch.get_num_threads() == cpus
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with limit_threads(2**20, cpus=1) as threads:
            assert threads == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


FORKING = """
import os, torch, warnings
warnings.simplefilter("ignore")
from minigpt.system.device import limit_threads
torch.set_num_threads(2)
def compute():
    with limit_threads(2**20, cpus=2) as threads:
        torch.randn(2**20).tanh().sum()
    return threads
assert compute() == 2
child = os.fork()
if not child:
    os._exit(compute() != 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert compute() == 2
"""


def test_a_process_forked_from_one_with_threads_uses_one_thread() -> None:
    run_code(FORKING)
