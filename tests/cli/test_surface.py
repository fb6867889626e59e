"""The command line's surface is frozen: a change of it changes surface.txt, on purpose.

`python tests/cli/test_surface.py` writes the file anew.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from minigpt.cli.main import cli, run

FROZEN = Path(__file__).with_name("surface.txt")


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, those of a group after it."""
    for name, command in cli.commands.items():
        yield f"minigpt {name}", command
        for inner, below in getattr(command, "commands", {}).items():
            yield f"minigpt {name} {inner}", below


def surface() -> str:
    """Every command with its arguments and flags, their kinds and what they can be."""
    lines = []
    for name, command in commands():
        lines.append(name)
        for parameter in command.params:
            spelled = ", ".join(parameter.opts) if isinstance(parameter, click.Option) else parameter.name.upper()
            kind = "flag" if getattr(parameter, "is_flag", False) else parameter.type.name
            choices = f" {'|'.join(parameter.type.choices)}" if isinstance(parameter.type, click.Choice) else ""
            lines.append(f"    {spelled}: {kind}{choices}")
    return "\n".join(lines) + "\n"


def test_commands_and_flags_are_those_of_the_frozen_surface() -> None:
    assert surface() == FROZEN.read_text()


def test_every_command_and_flag_has_a_help_text() -> None:
    for _, command in commands():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_help_lists_every_command_once_in_sections_by_purpose(capsys: pytest.CaptureFixture) -> None:
    assert run(["--help"]) == 0
    sections = {}
    for block in capsys.readouterr().out.split("\n\n"):
        title, *lines = block.splitlines()
        sections[title] = [line.split()[0] for line in lines]
    titles = ["Train:", "Write:", "Look inside:", "Fine-tune and shrink:", "Share:", "Learn:", "This machine:"]
    assert list(sections)[-len(titles) :] == titles
    assert sections["Write:"] == ["sample", "chat"]
    assert [name for title in titles for name in sections[title]] == list(cli.commands)


if __name__ == "__main__":
    FROZEN.write_text(surface())
