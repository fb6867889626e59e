"""Run the equalities on a device, and report which of them hold."""

import dataclasses
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from minigpt.acceleration import has_kernels
from minigpt.errors import DeviceError, MinigptError
from minigpt.studies.selfcheck import equalities
from minigpt.studies.selfcheck.equalities import ARCHITECTURES, ModelPair
from minigpt.system.cpus import count_cpus
from minigpt.system.device import describe_device, pick_device
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.training.precision import require_precision
from minigpt.version import __version__

LIMITS = {"fp32": 1e-4, "bf16": 2e-2}  # of the largest logit, or gradient
Status = Literal["equal", "differs", "failed", "left out"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One equality, measured.

    Attributes:
        name: what was computed.
        architecture: by which model.
        precision: "fp32" or "bf16", on the device.
        limit: the largest difference allowed, in proportion to the largest number on the CPU.
        difference: the difference; None if it was not measured.
        reason: why it was not measured; empty if it was.
        failed: whether the device could not compute it, though it should.
    """

    name: str
    architecture: str
    precision: str
    limit: float
    difference: float | None = None
    reason: str = ""
    failed: bool = False

    @property
    def status(self) -> Status:
        """Say whether the equality holds."""
        if self.difference is None:
            return "failed" if self.failed else "left out"
        return "equal" if self.difference <= self.limit else "differs"


@use_pytorch_defaults()
def check_device(name: str = "auto", on_check: Callable[[Check], None] = lambda check: None) -> list[Check]:
    """Compare a device with the CPU: logits, gradients, cached decoding, generation, 4-bit weights and resuming.

    Args:
        name: the device, as for `pick_device`. On "cpu" the checks compare the kernels with plain PyTorch.
        on_check: called after each check.

    Returns:
        The checks, always in the same order.

    Raises:
        DeviceError: the machine does not have the device.
    """
    device = pick_device(name)
    checks = []
    with _use_full_float32():
        for architecture in ARCHITECTURES:
            pair = ModelPair(architecture, device)
            for check, measure in _list_checks(pair):
                checks.append(_measure(check, measure, device))
                on_check(checks[-1])
    return checks


def _list_checks(pair: ModelPair) -> Iterator[tuple[Check, Callable[[], float]]]:
    """Yield each check of a model, and the function that measures its difference."""
    architecture = pair.config.model.architecture
    for precision, limit in LIMITS.items():
        for name, compare in (("logits", equalities.measure_forward), ("gradients", equalities.measure_backward)):
            yield Check(name, architecture, precision, limit), lambda c=compare, p=precision: c(pair, p)  # type: ignore[misc]
    for name, measure in (
        ("cached decoding", equalities.measure_cached_decoding),
        ("generation", equalities.measure_generation),
        ("4-bit weights", equalities.measure_4bit),
    ):
        yield Check(name, architecture, "fp32", LIMITS["fp32"]), lambda m=measure: m(pair)  # type: ignore[misc]
    # A CPU repeats a training bit for bit. Some of a GPU's sums have no fixed order.
    limit = 0.0 if pair.device.type == "cpu" else LIMITS["fp32"]
    resume_check = Check("stop and resume", architecture, "fp32", limit)
    yield resume_check, lambda: equalities.measure_resume(pair)


def _measure(check: Check, measure: Callable[[], float], device: torch.device) -> Check:
    """Return the check with its difference, or with the reason why there is none."""
    try:
        require_precision(check.precision, device)
        return dataclasses.replace(check, difference=measure())
    except DeviceError:
        return dataclasses.replace(check, reason=f"{check.precision} is not supported on this device")
    except (RuntimeError, TypeError, MinigptError) as error:  # PyTorch's answers to what a device cannot do, and ours
        return dataclasses.replace(check, reason=str(error).split("\n")[0], failed=True)


@contextmanager
def _use_full_float32() -> Iterator[None]:
    """Switch TF32 off within the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def describe_machine(name: str = "auto") -> dict[str, Any]:
    """Return what a report must say: versions, system, device, kernels."""
    return {
        "minigpt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": describe_device(pick_device(name)),
        "cpus": count_cpus(),
        "kernels": "on" if has_kernels() else "off",
    }
