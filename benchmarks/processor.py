"""The name of the processor that a table was measured on."""

import platform
from pathlib import Path

VECTORS = ("avx512_bf16", "avx512f", "avx2", "asimd")  # the widest first


def describe_processor() -> str:
    """Return the processor's name, and on Linux its family, its model and its vectors as the kernel has them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    features = (facts.get("flags") or facts.get("Features") or "").split()
    vectors = next((name for name in VECTORS if name in features), "no vectors")
    where = f"family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}, {vectors}"
    return f"{facts.get('model name', platform.machine())} ({where})"
