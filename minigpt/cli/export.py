"""`minigpt export`."""

import click

from minigpt.cli.options import json_option, run_argument, weights_option
from minigpt.cli.output import open_run, print_json, print_line


@click.command(short_help="Export a run to another program's format.")
@run_argument
@click.option("--to", required=True, metavar="FORMAT", help="hf: a folder for transformers; lecture: a state dict")
@click.option("--out", metavar="FOLDER", help="the folder to write [exports/RUN-FORMAT]")
@click.option("--overwrite", is_flag=True, help="replace an earlier export")
@click.option("--dequantize", is_flag=True, help="write the matrices of a quantized run in 32 bits")
@weights_option
@json_option
def export(
    run: str | None, to: str, out: str | None, overwrite: bool, dequantize: bool, weights: str, as_json: bool
) -> None:
    """Export RUN to the format of another program, and compare the logits there with the run's.

    RUN is the run's folder [the newest in runs/].
    """
    from minigpt.exchange.export import export_run

    exported = open_run(run, weights, device="cpu")
    result = export_run(exported, to, out, overwrite, dequantize)
    if as_json:
        print_json(
            {
                "run": str(exported.path),
                "format": to,
                "path": str(result.path),
                "bytes": result.bytes,
                "checked_by": result.program if result.difference is not None else None,
                "largest_difference": result.difference,
            }
        )
        return
    print_line(f"wrote {result.path}, {result.bytes:,} bytes")
    if result.difference is None:
        print_line(f"not checked, because {result.program} is not installed: pip install {result.install}")
    else:
        print_line(f"checked with {result.program}: the logits differ by at most {result.difference:.1g}")
