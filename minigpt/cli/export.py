"""`minigpt export`."""

import click

from minigpt.cli.options import json_option, run_argument, weights_option
from minigpt.cli.output import open_run, print_json, print_line

ABOUT_FORMATS = (
    "hf: a folder for transformers; gguf: a file for llama.cpp and ollama; onnx: for ONNX Runtime and transformers.js; "
    "nanogpt: files for nanoGPT's sample.py; lecture: a state dict; html: one file that runs in a browser, offline"
)


@click.command(short_help="Export a run to another program's format.")
@run_argument
@click.option("--to", required=True, metavar="FORMAT", help=ABOUT_FORMATS)
@click.option("--out", metavar="FOLDER", help="the folder, or of html the file, to write [exports/RUN-FORMAT]")
@click.option("--overwrite", is_flag=True, help="replace an earlier export")
@click.option("--dequantize", is_flag=True, help="write the matrices of a quantized run in 32 bits")
@click.option(
    "--quantize", metavar="KIND", help="fewer bits, and print what they cost; gguf: q8_0, onnx and html: int8 [none]"
)
@weights_option
@json_option
def export(
    run: str | None,
    to: str,
    out: str | None,
    overwrite: bool,
    dequantize: bool,
    quantize: str | None,
    weights: str,
    as_json: bool,
) -> None:
    """Export RUN to the format of another program, and compare the logits there with the run's.

    RUN is the run's folder [the newest in runs/].
    """
    loaded_run = open_run(run, weights, device="cpu")
    if to == "html":
        from minigpt.web.offline import export_html

        result = export_html(loaded_run, out, overwrite, quantize)
    else:
        from minigpt.exchange.export import export_run

        result = export_run(loaded_run, to, out, overwrite, dequantize, quantize)
    comparison = result.comparison
    if as_json:
        print_json(
            {
                "run": str(loaded_run.path),
                "format": to,
                "path": str(result.path),
                "bytes": result.bytes,
                "checked_by": comparison.program if comparison else None,
                "largest_difference": comparison.difference if comparison else None,
                "quantization": quantize,
                "loss": comparison.export_loss if comparison else None,
                "run_loss": comparison.run_loss if comparison else None,
            }
        )
        return
    print_line(f"wrote {result.path}, {result.bytes:,} bytes")
    if comparison is None or comparison.program != result.program:
        print_line(f"not checked, because {result.program} is not installed: pip install {result.install}")
    if comparison is not None:
        print_line(f"checked with {comparison.program}: the logits differ by at most {comparison.difference:.1g}")
        if quantize and comparison.export_loss is not None:
            losses = f"{comparison.export_loss:.4f}, and {comparison.run_loss:.4f} in full precision"
            print_line(f"in {quantize} the loss is {losses}")
