"""`minigpt serve`."""

import dataclasses
import os
import re
from pathlib import Path

import click

from minigpt.cli.options import GroupedCommand
from minigpt.errors import ConfigError, MissingExtraError
from minigpt.web.settings import Limits, ServerSettings

RUNS = Path("runs")
TOKEN = "MINIGPT_TOKEN"


@click.command(cls=GroupedCommand, short_help="Serve runs: a playground in the browser, and OpenAI's API.")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="the port; 0 takes a free one [8000]")
@click.option(
    "--host",
    default="127.0.0.1",
    help="the address to listen on; with another one, such as 0.0.0.0, other machines can connect [127.0.0.1]",
)
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="a name by which browsers may call the server [localhost]"
)
@click.option(
    "--trainings",
    type=click.IntRange(0),
    default=Limits.trainings,
    help=f"how many trainings the page may run at once; 0 allows none [{Limits.trainings}]",
)
@click.option("--open/--no-open", "opens_browser", default=True, help="open the playground in a browser [open]")
def serve(
    runs: tuple[str, ...], port: int, host: str, allow_host: tuple[str, ...], trainings: int, opens_browser: bool
) -> None:
    """Serve runs on this machine: a playground in the browser, and OpenAI's API for other programs.

    RUN is a run's folder [all runs in runs/, and those that the page trains there]. The command prints a URL with a
    token. The page takes the token from the URL; another program sends it as its API key. The environment variable
    MINIGPT_TOKEN sets the token. Ctrl-C stops the server. A training goes on.
    """
    given = os.environ.get(TOKEN)
    if given is not None and not re.fullmatch(r"[\w~.-]{16,}", given, re.ASCII):
        raise ConfigError(f"{TOKEN} must have at least 16 letters, digits, '-', '_', '.' or '~': set another, or none")
    try:
        from minigpt.web.server import serve
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "web") from None
    from minigpt.runs.run_listing import require_run
    from minigpt.web.served_runs import ServedRuns

    paths = [Path(run) for run in runs]
    for path in paths:
        require_run(path)
    settings = ServerSettings(host, port, allow_host, limits=Limits(trainings=trainings))
    if given is not None:
        settings = dataclasses.replace(settings, token=given)
    serve(ServedRuns(paths, None if paths else RUNS), settings, opens_browser)
