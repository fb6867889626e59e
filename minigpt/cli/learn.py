"""`minigpt learn`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from minigpt.cli.options import data_option, json_option
from minigpt.cli.output import print_json, print_line, print_message
from minigpt.config import DataPath
from minigpt.errors import ConfigError, WorkError

if TYPE_CHECKING:
    from minigpt.learn.catalog import Entry
    from minigpt.learn.judge import Verdict
    from minigpt.learn.workbook import Workbook

Command = TypeVar("Command", bound=Callable[..., Any])
MARKS = {"done": "✓", "changed": "?", "open": "·", "missing": "-"}
NOTES = {"changed": "  (changed since it passed: check it again)", "missing": "  (no file)"}


def folder_option(command: Command) -> Command:
    """Add `--folder`."""
    about = "the workbook [this folder, or workbook]"
    return click.option("--folder", type=click.Path(path_type=Path), help=about)(command)


@click.group(invoke_without_command=True, short_help="Learn by writing a GPT: exercises and their checks.")
@folder_option
@json_option
@click.pass_context
def learn(context: click.Context, folder: Path | None, as_json: bool) -> None:
    """Write a GPT of your own, exercise by exercise.

    Without a command the list of the exercises is shown, and which of them are done.

    \b
        minigpt learn start     make the folder workbook, a file for each exercise
        minigpt learn check     check the next exercise
        minigpt learn hint 7    a hint for exercise 7
    """  # noqa: D301 (the backslash is click's mark for lines that it must not wrap)
    if context.invoked_subcommand:
        if folder is not None or as_json:
            raise ConfigError(f"write the options after the command: minigpt learn {context.invoked_subcommand} …")
        return
    from minigpt.learn.workbook import Workbook

    workbook = Workbook.find(folder)
    states = workbook.list_status()
    done = sum(status.state == "done" for status in states)
    if as_json:
        rows = [{**_describe_entry(status.entry), "state": status.state} for status in states]
        print_json({"folder": str(workbook.folder), "done": done, "exercises": rows})
        return
    for status in states:
        entry, note = status.entry, NOTES.get(status.state, "")
        print_line(f"{MARKS[status.state]} {entry.number:>2}  {entry.title}{note}")
    place = "this folder" if workbook.folder == Path() else str(workbook.folder)
    print_line(f"{done} of {len(states)} done in {place}")
    following = workbook.find_next()
    if following:
        print_line(f"next: write {workbook.get_path(following)}, then minigpt learn check")


@learn.command(short_help="Make a folder of exercises.")
@click.argument("folder", default="workbook", type=click.Path(path_type=Path))
@json_option
def start(folder: Path, as_json: bool) -> None:
    """Make FOLDER [workbook] with a file for each exercise. Files that are already there stay as they are."""
    from minigpt.learn.workbook import DEFAULT_FOLDER, Workbook

    if folder == DEFAULT_FOLDER and not folder.exists() and Workbook(Path()).has_files():
        raise ConfigError("this folder is a workbook already: minigpt learn start . writes files that are missing")
    workbook, written = Workbook.start(folder)
    if as_json:
        print_json({"folder": str(folder), "written": [entry.file_name for entry in written]})
        return
    print_line(f"wrote {len(written)} exercises to {folder}")
    following = workbook.find_next()
    if following:
        print_line(f"next: open {workbook.get_path(following)}, write your code in it, then minigpt learn check")


@learn.command(short_help="Check an exercise.")
@click.argument("numbers", nargs=-1, type=int)
@click.option("--all", "check_all", is_flag=True, help="check all exercises but the training of the last")
@data_option("the text that the last exercise trains on [input.txt here, or Tiny Shakespeare]", "FILE")
@folder_option
@json_option
def check(numbers: tuple[int, ...], check_all: bool, data: DataPath, folder: Path | None, as_json: bool) -> None:
    """Check the exercises NUMBERS, or the first that is not done.

    Your code runs in a process of its own, for at most ten seconds. The exit status is 1 if an exercise fails.
    """
    from minigpt.learn.catalog import ENTRIES, get_entry
    from minigpt.learn.workbook import Workbook

    workbook = Workbook.find(folder)
    entries = [entry for entry in ENTRIES if not entry.has_trial] if check_all else [get_entry(n) for n in numbers]
    following = workbook.find_next()
    if not entries and following:
        entries = [following]
    verdicts = _check(workbook, entries, data, as_json)
    if as_json:
        print_json({"folder": str(workbook.folder), "checks": [dataclasses.asdict(verdict) for verdict in verdicts]})
    elif all(verdicts):
        _print_next(workbook)
    if not all(verdicts):
        error = WorkError("an exercise does not pass yet")
        error.silent = True  # the verdicts say it
        raise error


def _check(workbook: "Workbook", entries: "list[Entry]", data: DataPath, as_json: bool) -> "list[Verdict]":
    """Check exercises, and print each verdict unless they are printed as JSON at the end."""
    import tempfile

    from minigpt.learn.file_check import check_files

    verdicts = []
    with tempfile.TemporaryDirectory() as temporary:
        text_path = None
        if any(entry.has_trial for entry in entries):
            from minigpt.data.corpus import find_corpus

            text_path = Path(temporary) / "text.txt"
            text_path.write_text(find_corpus(data, print_message).text, encoding="utf-8", newline="")
        for verdict in check_files(workbook, entries, text_path):
            verdicts.append(verdict)
            if not as_json:
                _print_verdict(verdict, workbook)
    return verdicts


def _print_next(workbook: "Workbook") -> None:
    """Print the first exercise that is not done."""
    following = workbook.find_next()
    if following is None:
        print_line("all exercises are done: you have written a GPT")
    else:
        print_line(f"next: {following.number}. {following.title}, {workbook.get_path(following)}")


def _print_verdict(verdict: "Verdict", workbook: "Workbook") -> None:
    """Print what a check found."""
    from minigpt.learn.catalog import get_entry

    entry = get_entry(verdict.number)
    if verdict.printed:
        print_line(f"--- {entry.file_name} printed ---\n{verdict.printed}\n---")
    print_line(f"{'✓' if verdict.passed else '✗'} {verdict}")
    if not verdict.passed:
        print_line(f"  {workbook.get_path(entry)} ({verdict.seconds:.1f} s); minigpt learn hint {entry.number}")


@learn.command(short_help="Show one more hint.")
@click.argument("number", type=int, required=False)
@folder_option
def hint(number: int | None, folder: Path | None) -> None:
    """Show the next hint for exercise NUMBER, or for the first that is not done. Each call shows one more."""
    from minigpt.learn.catalog import ENTRIES, get_entry, load_exercise
    from minigpt.learn.workbook import Workbook

    workbook = Workbook.find(folder)
    entry = (workbook.find_next() or ENTRIES[-1]) if number is None else get_entry(number)
    hints = load_exercise(entry).hints
    shown = workbook.take_hint(entry, len(hints))
    print_line(f"exercise {entry.number}, hint {shown + 1} of {len(hints)}: {hints[shown]}")
    if shown + 1 == len(hints):
        print_message(f"this is the last hint; minigpt learn solution {entry.number} shows the solution")


@learn.command(short_help="Show the package's own function.")
@click.argument("number", type=int)
def solution(number: int) -> None:
    """Show how the package itself solves exercise NUMBER, and in which file."""
    import inspect

    from minigpt.learn.catalog import get_entry, load_exercise
    from minigpt.learn.skeleton import get_source

    for reference in load_exercise(get_entry(number)).references:
        file = reference.__module__.replace(".", "/")
        print_line(f"# {file}.py, line {inspect.getsourcelines(reference)[1]}")
        print(f"{get_source(reference)}\n")


@learn.command(short_help="Show which exercises pass, for several workbooks.")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def report(folders: tuple[Path, ...], as_json: bool) -> None:
    """Check the workbooks in FOLDERS anew, and show which exercises pass.

    The last exercise trains for two minutes. It is not trained again: what its own check found is reported.
    """
    from minigpt.learn.check_server import CheckServer
    from minigpt.learn.report import report_workbook

    found = []
    with CheckServer() as server:
        for folder in folders:
            found.append(result := report_workbook(folder, server))
            if not as_json:
                marks = "".join("✓" if number in result.passed else "·" for number in result.checked)
                print_line(f"{marks}  {len(result.passed):>2} of {len(result.checked)}  {folder}")
    if as_json:
        print_json({"workbooks": [dataclasses.asdict(result) for result in found]})


def _describe_entry(entry: "Entry") -> dict[str, Any]:
    """Return an exercise's line of the list, for JSON."""
    return {"number": entry.number, "name": entry.name, "title": entry.title, "file": entry.file_name}
