"""The model of a run as an export needs it: on the CPU, in float32, without kernels."""

import torch
from torch import Tensor, nn

from minigpt.errors import ExchangeError
from minigpt.model.gpt import GPT
from minigpt.model.language_model import TrainedModel, get_model_class
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.quantization import Linear4bit, Linear8bit
from minigpt.runs.run import Run


def copy_gpt(run: Run, dequantize: bool = False) -> GPT:
    """Return a copy of a run's GPT, for formats that hold nothing else.

    Args:
        run: the run.
        dequantize: whether to return a quantized model's matrices in float32.

    Raises:
        ExchangeError: the model is no GPT, or is quantized.
    """
    architecture = run.config.model.architecture
    if architecture != "gpt":
        raise ExchangeError(
            f"this format holds a GPT, and {str(run.path)!r} is a {architecture} model: export it with --to onnx"
        )
    model = copy_model(run, dequantize)
    assert isinstance(model, GPT)
    return model


def copy_model(run: Run, dequantize: bool = False) -> TrainedModel:
    """Return a copy of a run's model. The lecture's GPT becomes the fast one, which computes the same.

    Args:
        run: the run.
        dequantize: whether to return a quantized model's matrices in float32.

    Raises:
        ExchangeError: the model is quantized.
    """
    model, config = run.model, run.config.override(quantization="none").model
    if isinstance(model, GPTLanguageModel):
        return GPT.from_lecture(model.state_dict(), config.dropout).eval()
    if run.config.model.quantization != "none" and not dequantize:
        raise ExchangeError(
            f"{str(run.path)!r} is quantized to {run.config.model.quantization}, which this format does not hold: "
            "export the run that it was made from, or add --dequantize"
        )
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
        copy = get_model_class(config)(config)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in copy.state_dict()}
    weights |= {f"{name}.weight": layer.weight for name, layer in _find_quantized(model)}
    copy.load_state_dict(weights)
    return copy.eval()


def get_gpt2_weights(model: GPT) -> dict[str, Tensor]:
    """Return the parameters that GPT-2 has, by our names: a missing bias of queries, keys and values is zeros."""
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for layer, block in enumerate(model.blocks):
        qkv = block.attention.qkv
        weights.setdefault(f"blocks.{layer}.attention.qkv.bias", qkv.weight.new_zeros(qkv.out_features))
    return weights


def _find_quantized(model: nn.Module) -> list[tuple[str, Linear4bit | Linear8bit]]:
    """Return the quantized layers with their names."""
    named: list[tuple[str, nn.Module]] = list(model.named_modules())
    return [(name, layer) for name, layer in named if isinstance(layer, Linear4bit | Linear8bit)]
