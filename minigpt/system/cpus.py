"""The number of CPUs that this process may use, which containers and job schedulers limit."""

import functools
import os
from pathlib import Path, PurePosixPath

_V1_FOLDERS = ("cpu", "cpu,cpuacct")  # where cgroup v1 mounts its CPU controller, in /sys/fs/cgroup
_V2_FOLDERS = ("", "unified")


def count_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs of the affinity mask, or the whole CPUs of a smaller cgroup quota; at least 1.

    Threads beyond the quota of a container make a training slower: the system stops all of them for a part of each
    period, and they wait for each other.

    Args:
        root: the root of the file system, whose /proc and /sys tell the quota.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, read_cpu_quota(root))))


@functools.cache
def read_cpu_quota(root: Path = Path("/")) -> float:
    """Return how many CPUs the cgroups of this process may use, versions 1 and 2; infinity without a quota.

    The quota of a group holds for all groups below it, so the smallest of a group and its parents counts. In a
    container, the path of the group may be that of the host; then the mounted folder is the group itself.

    Args:
        root: the root of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):  # not Linux
        return float("inf")
    quotas = [float("inf")]
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        is_v2 = controllers == ""
        if is_v2 or "cpu" in controllers.split(","):
            parts = PurePosixPath(path.lstrip("/"))
            for folder in _V2_FOLDERS if is_v2 else _V1_FOLDERS:
                mounted = root / "sys/fs/cgroup" / folder
                quotas += [_read_group_quota(mounted / group, is_v2) for group in (parts, *parts.parents)]
    return min(quotas)


def _read_group_quota(group: Path, is_v2: bool) -> float:
    """Return the quota of one cgroup in CPUs; infinity if it has none."""
    names = ["cpu.max"] if is_v2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    try:
        quota, period = map(float, " ".join([(group / name).read_text() for name in names]).split())
    except (OSError, ValueError):  # no such group, or "max"
        return float("inf")
    return quota / period if quota > 0 and period > 0 else float("inf")
