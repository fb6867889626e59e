"""`minigpt selfcheck`: the equalities hold on the CPU, a wrong device is found out, and the report says so."""

import json
from collections.abc import Callable

import pytest
import torch

from minigpt.cli.selfcheck import _format_table
from minigpt.studies.selfcheck import equalities
from minigpt.studies.selfcheck.checks import LIMITS, Check, _measure, describe_machine
from minigpt.studies.selfcheck.equalities import ARCHITECTURES, ModelPair

CPU = torch.device("cpu")
MEASURES: list[tuple[Callable[..., float], tuple[str, ...]]] = [
    (equalities.measure_forward, ("fp32",)),
    (equalities.measure_forward, ("bf16",)),
    (equalities.measure_backward, ("fp32",)),
    (equalities.measure_backward, ("bf16",)),
    (equalities.measure_cached_decoding, ()),
    (equalities.measure_generation, ()),
    (equalities.measure_4bit, ()),
]


@pytest.fixture(params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> ModelPair:
    return ModelPair(request.param, CPU)


def test_every_equality_holds_with_the_kernels_of_the_cpu(pair: ModelPair) -> None:
    for measure, arguments in MEASURES:
        limit = LIMITS[arguments[0] if arguments else "fp32"]
        assert measure(pair, *arguments) <= limit, (measure.__name__, arguments)


def test_a_wrong_weight_on_the_device_is_found_by_every_equality_that_uses_it(pair: ModelPair) -> None:
    with torch.no_grad():
        pair.model.blocks[0].ffwd.up.weight += 0.05
    for measure, arguments in MEASURES:
        if measure is not equalities.measure_4bit:  # it copies the reference
            assert measure(pair, *arguments) > LIMITS["fp32"], (measure.__name__, arguments)


def test_a_stopped_and_resumed_training_gives_the_same_model_to_the_bit() -> None:
    assert equalities.measure_resume(ModelPair("gpt", CPU)) == 0.0


def test_compare_is_relative_to_the_largest_number_and_nan_is_no_equality() -> None:
    expected = torch.tensor([1.0, -4.0])
    assert equalities.compare(torch.tensor([1.5, -4.0]), expected) == 0.125
    assert equalities.compare(torch.tensor([1.5, float("nan")]), expected) == float("inf")


def test_a_check_says_whether_it_holds_is_left_out_or_failed() -> None:
    def fail() -> float:
        raise RuntimeError("no such operator\nand a long list")

    check, half = Check("logits", "gpt", "fp32", 1e-4), Check("logits", "gpt", "bf16", 2e-2)
    assert _measure(check, lambda: 1e-4, CPU).status == "equal"
    assert _measure(check, lambda: 2e-4, CPU).status == "differs"
    failed = _measure(check, fail, CPU)
    assert (failed.status, failed.reason) == ("failed", "no such operator")
    assert _measure(half, fail, torch.device("mps")).status == "left out"


def test_the_table_is_markdown_with_a_row_for_each_check() -> None:
    checks = [
        Check("logits", "gpt", "fp32", 1e-4, 3e-7),
        Check("logits", "gpt", "bf16", 2e-2, reason="it is not there"),
    ]
    facts, _, header, line, first, second = _format_table(describe_machine("cpu"), checks)
    assert f"torch {torch.__version__}" in facts
    assert "device cpu" in facts
    assert header.split("|")[1].strip() == "check"
    assert set(line) == set("|- ")
    assert [cell.strip() for cell in first.split("|")[1:-1]] == ["logits", "gpt", "fp32", "3.0e-07", "1.0e-04", "equal"]
    assert second.endswith("| left out: it is not there |")


@pytest.mark.long
def test_the_command_prints_every_check_and_exits_with_0(command: Callable) -> None:
    done = command("selfcheck", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert len(checks) == 16
    assert {check["status"] for check in checks} == {"equal"}


def test_a_device_that_the_machine_lacks_is_refused(command: Callable) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    done = command("selfcheck", "--device", "mps")
    assert done.returncode == 2
    assert "the device 'mps' is not available on this machine" in done.stderr
