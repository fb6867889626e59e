"""`minigpt quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.options import data_option, json_option, weights_option
from minigpt.cli.output import describe_run, open_run, print_json, print_message, print_next_command, print_pieces
from minigpt.config import DataPath
from minigpt.system.files import require_inside, require_writable

if TYPE_CHECKING:
    from minigpt.runs.run import Run


@click.command(short_help="Quantize a run's matrices to 8 or 4 bits.")
@click.argument("run")
@click.option("--bits", type=int, default=4, help="8: int8 with a scale for each row; 4: NF4 in blocks of 64 [4]")
@data_option("the text to measure both runs on [the run's own]")
@click.option("--out", metavar="FOLDER", help="the new run's folder; a name already taken gets a number")
@click.option("--study", is_flag=True, help="make no run: measure 32, 16, 8, 4, 3 and 2 bits, and draw a picture")
@click.option("--prompt", default="", help="a text that the study continues at each number of bits [none]")
@weights_option
@json_option
def quantize(
    run: str, bits: int, data: DataPath, out: str | None, study: bool, prompt: str, weights: str, as_json: bool
) -> None:
    """Make a run with RUN's matrices quantized to 8 or 4 bits per weight, and measure the change of the loss.

    With 4 bits, the last layer and the embeddings stay in 32 bits.
    """
    if study:
        _show_depths(open_run(run, weights, device="cpu"), prompt, data, out, as_json)
        return
    from minigpt.runs.quantize_run import quantize

    result = quantize(open_run(run, weights, device="cpu"), bits, out, data)
    sizes = {"bytes_before": result.bytes_before, "bytes_after": result.bytes_after}
    before, after = result.loss_before, result.loss_after
    if as_json:
        print_json({**describe_run(result.run), **sizes, "loss_before": before, "loss_after": after})
        return
    print(f"weights {result.bytes_after:,} bytes, before {result.bytes_before:,}")
    if before is not None and after is not None:
        print(f"exact loss {after:.4f}, before {before:.4f}: {after - before:+z.4f}")
    print_next_command(result.run, "sample")


def _show_depths(run: "Run", prompt: str, data: DataPath, out: str | None, as_json: bool) -> None:
    """Print the loss and the text at each number of bits, and draw a picture."""
    from minigpt.runs.run_directory import RunDirectory
    from minigpt.studies.bit_depth import format_table, measure_bit_depths, write_picture

    picture = Path(out) if out else RunDirectory(run.path).bit_depths
    if not out:
        require_inside(run.path, [picture])
    require_writable(picture)
    depths = measure_bit_depths(run, prompt, data, print_message)
    write_picture(depths, run, picture)
    if as_json:
        print_json({"run": str(run.path), "picture": str(picture), "depths": [vars(depth) for depth in depths]})
    else:
        print_pieces([format_table(depths), "\n"])
        print_pieces([f"the picture is {picture}\n"])
