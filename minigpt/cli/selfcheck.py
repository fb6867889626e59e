"""`minigpt selfcheck`."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.options import device_option, json_option
from minigpt.cli.output import print_json, print_line, print_message
from minigpt.errors import WorkError

if TYPE_CHECKING:
    from minigpt.studies.selfcheck.checks import Check

COLUMNS = ("check", "model", "precision", "difference", "limit", "result")


@click.command(short_help="Compare a device with the CPU, and print a table for a report.")
@device_option
@json_option
def selfcheck(device: str, as_json: bool) -> None:
    """Compare a device with the CPU: logits, gradients, cached decoding, generation, 4-bit weights, stop and resume.

    It takes about a minute. A difference is the largest one, in proportion to the largest number on the CPU. The table
    is Markdown: paste it into a report. On a CPU, the kernels are compared with plain PyTorch. The exit status is 1 if
    a check fails.
    """
    from minigpt.studies.selfcheck.checks import check_device, describe_machine

    machine = describe_machine(device)
    checks = check_device(device, lambda check: print_message(_describe_progress(check)))
    if as_json:
        content = [dataclasses.asdict(check) | {"status": check.status} for check in checks]
        print_json({"machine": machine, "checks": content})
    else:
        for line in _format_table(machine, checks):
            print_line(line)
    bad = [check for check in checks if check.status in ("differs", "failed")]
    if bad:
        raise WorkError(f"{len(bad)} of {len(checks)} checks do not hold on this device: paste the table into a report")


def _describe_progress(check: "Check") -> str:
    return f"{check.architecture}, {check.precision}, {check.name}: {check.status}"


def _format_table(machine: dict[str, Any], checks: list["Check"]) -> list[str]:
    """Return the lines of the report, in Markdown."""
    rows = [
        (
            check.name,
            check.architecture,
            check.precision,
            _format(check.difference),
            _format(check.limit),
            _explain(check),
        )
        for check in checks
    ]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    table = [COLUMNS, tuple("-" * width for width in widths), *rows]
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    return [facts, "", *("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in table)]


def _format(number: float | None) -> str:
    """Return a number with two digits.

    >>> _format(0.0001), _format(0.0), _format(None)
    ('1.0e-04', '0', '')
    """
    return "" if number is None else f"{number:.1e}" if number else "0"


def _explain(check: "Check") -> str:
    """Return the status of a check, with the reason if it was not measured."""
    return f"{check.status}: {check.reason}" if check.reason else check.status
