"""The GPT in a run, for formats that hold nothing else."""

import torch
from torch import nn

from minigpt.errors import ExchangeError
from minigpt.model.gpt import GPT
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.quantization import Linear4bit, Linear8bit
from minigpt.runs.run import Run


def read_gpt(run: Run, dequantize: bool = False) -> GPT:
    """Return a copy of a run's GPT on the CPU, in float32 and without kernels.

    Args:
        run: the run.
        dequantize: whether to return a quantized model's matrices in float32.

    Raises:
        ExchangeError: the model is no GPT, or is quantized.
    """
    model, architecture = run.model, run.config.model.architecture
    if isinstance(model, GPTLanguageModel):
        return GPT.from_lecture(model.state_dict(), run.config.model.dropout).eval()
    if not isinstance(model, GPT):
        way_out = "export it with --to lecture" if architecture == "bigram" else "train one with --architecture gpt"
        raise ExchangeError(f"this format holds a GPT, and {str(run.path)!r} is a {architecture} model: {way_out}")
    if run.config.model.quantization != "none" and not dequantize:
        raise ExchangeError(
            f"{str(run.path)!r} is quantized to {run.config.model.quantization}, which this format does not hold: "
            "export the run that it was made from, or add --dequantize"
        )
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
        copy = GPT(run.config.override(quantization="none").model)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in copy.state_dict()}
    weights |= {f"{name}.weight": layer.weight for name, layer in _find_quantized(model)}
    copy.load_state_dict(weights)
    return copy.eval()


def _find_quantized(model: GPT) -> list[tuple[str, Linear4bit | Linear8bit]]:
    """Return the quantized layers with their names."""
    named: list[tuple[str, nn.Module]] = list(model.named_modules())
    return [(name, layer) for name, layer in named if isinstance(layer, Linear4bit | Linear8bit)]
