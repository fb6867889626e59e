"""The equalities that a device must keep. Each function measures one, and returns the largest difference.

The reference is the model on the CPU, in float32 and without kernels. The other side is the same model on the device,
with the kernels that a run has there.

Shapes: B texts, T tokens, V vocabulary.
"""

import contextlib
import copy
import io
import random
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from minigpt.acceleration import accelerate
from minigpt.config import Config, SamplingConfig
from minigpt.generation.engine import decode, generate, prefill
from minigpt.model.gpt import GPT
from minigpt.model.language_model import build
from minigpt.model.modern import Modern
from minigpt.model.quantization import quantize_model
from minigpt.runs.run import Run
from minigpt.training.precision import autocast
from minigpt.training.resume import resume
from minigpt.training.train import train

SIZES = {"n_embd": 128, "n_head": 4, "n_layer": 2, "block_size": 64, "dropout": 0.0}
ARCHITECTURES: dict[str, dict[str, str]] = {
    "gpt": {"activation": "gelu"},  # the gradient of ReLU jumps at 0, where bf16 rounds to either side
    "modern": {},
}
VOCAB_SIZE = 96
BATCH_SIZE = 4
PROMPT_TOKENS = 24
SPREAD = 0.05  # added to the weights at random: those of a new model are so small that attention hardly matters
STEPS = 10  # of the training that is stopped in its middle
RESUME_SETTINGS = {"activation": "relu", "batch_size": 4, "eval_interval": 100, "eval_windows": 4}


class ModelPair:
    """A model on the CPU, and a copy of it on a device.

    Attributes:
        reference: the model on the CPU, without kernels.
        model: the copy on the device, with kernels.
        idx: token ids (B, T) on the CPU; T is block_size.
        targets: the token after each of `idx`, (B, T).
    """

    def __init__(self, architecture: str, device: torch.device) -> None:
        """Build the model of `ARCHITECTURES[architecture]`, in every call the same."""
        self.device = device
        settings = SIZES | ARCHITECTURES[architecture] | {"vocab_size": VOCAB_SIZE, "device": device.type}
        self.config = Config().override(architecture=architecture, **settings)
        torch.manual_seed(1)
        model = build(self.config.model)
        assert isinstance(model, GPT | Modern)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=SPREAD)
        ids = torch.randint(VOCAB_SIZE, (BATCH_SIZE, self.config.model.block_size + 1))
        self.idx, self.targets = ids[:, :-1], ids[:, 1:]
        self.reference = model.eval()
        self.model = self.copy_to_device(model)

    def copy_to_device(self, model: GPT | Modern) -> GPT | Modern:
        """Return a copy of a model on the device, with kernels."""
        moved = copy.deepcopy(model).to(self.device)
        accelerate(moved, self.config)
        return moved


def measure_forward(pair: ModelPair, precision: str) -> float:
    """Compare the logits of all positions."""
    with torch.no_grad():
        expected = pair.reference(pair.idx)[0]
        with autocast(pair.device, precision):
            found = pair.model(pair.idx.to(pair.device))[0]
    return compare(found, expected)


def measure_backward(pair: ModelPair, precision: str) -> float:
    """Compare the gradients of all parameters, in proportion to the largest of them."""
    _, loss = pair.reference(pair.idx, pair.targets)
    expected = torch.autograd.grad(loss, [*pair.reference.parameters()])
    with autocast(pair.device, precision):
        _, loss = pair.model(pair.idx.to(pair.device), pair.targets.to(pair.device))
    found = torch.autograd.grad(loss, [*pair.model.parameters()])
    return compare(_flatten(found), _flatten(expected))


def measure_cached_decoding(pair: ModelPair) -> float:
    """Compare the logits of tokens that the device reads one by one, with a KV cache, with those of one forward."""
    idx = pair.idx.to(pair.device)
    with torch.no_grad():
        expected = pair.reference(pair.idx)[0][:, PROMPT_TOKENS - 1 :]
    window, first = prefill(pair.model, idx[:, :PROMPT_TOKENS])
    rest = [decode(window, idx[:, position : position + 1]) for position in range(PROMPT_TOKENS, idx.shape[1])]
    return compare(torch.stack([first, *rest], dim=1), expected)


def measure_generation(pair: ModelPair) -> float:
    """Generate the likeliest tokens, by a compiled decoder where there is one, and look them up in the reference.

    Two tokens with nearly the same logit may change places. So the difference is how far the reference's logit of a
    token is below its largest logit.
    """
    count = pair.config.model.block_size - PROMPT_TOKENS
    sampling = SamplingConfig(max_new_tokens=count, temperature=0.0)
    prompt = pair.idx[:1, :PROMPT_TOKENS]
    tokens = generate(pair.model, prompt.to(pair.device), sampling)  # (1, count)
    with torch.no_grad():
        logits = pair.reference(torch.cat([prompt, tokens], dim=1))[0][:, PROMPT_TOKENS - 1 : -1]
    chosen = logits.gather(2, tokens[:, :, None])
    return compare(chosen, logits.amax(dim=2, keepdim=True), largest=logits.abs().max().item())


def measure_4bit(pair: ModelPair) -> float:
    """Compare the logits of the model with weights in NF4: the same codes on both sides."""
    quantized = quantize_model(copy.deepcopy(pair.reference), "nf4")
    with torch.no_grad():
        expected = quantized(pair.idx)[0]
        found = pair.copy_to_device(quantized)(pair.idx.to(pair.device))[0]
    return compare(found, expected)


def measure_resume(pair: ModelPair) -> float:
    """Train a run at one go, and another one that stops in the middle and resumes; compare their logits."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):  # no progress bars
        folder, text = Path(name), Path(name) / "text.txt"
        letters = random.Random(1).choices("abcdefgh \n", k=5000)
        text.write_text("".join(letters), encoding="utf-8")
        config = pair.config.override(max_iters=STEPS, **RESUME_SETTINGS)
        whole = train(config, text, folder / "whole")
        train(config.override(max_iters=STEPS // 2), text, folder / "stopped")
        resumed = resume(folder / "stopped", text, max_iters=STEPS)
        return compare(_compute_logits(resumed, pair), _compute_logits(whole, pair))


def _compute_logits(run: Run, pair: ModelPair) -> Tensor:
    """Return a run's logits for tokens of its vocabulary."""
    idx = pair.idx % run.config.model.vocab_size
    with torch.no_grad():
        return run.model(idx.to(pair.device))[0]


def compare(found: Tensor, expected: Tensor, largest: float | None = None) -> float:
    """Return the largest difference of two tensors in proportion to the largest expected number; NaN gives infinity.

    Args:
        found: a tensor on any device, of any floating-point dtype.
        expected: a tensor of the same shape.
        largest: the number to divide by; by default the largest absolute value in `expected`.
    """
    found, expected = (tensor.detach().to("cpu", torch.float32) for tensor in (found, expected))
    scale = expected.abs().max().item() if largest is None else largest
    difference = (found - expected).abs().max().item()
    return difference / scale if difference == difference else float("inf")


def _flatten(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.detach().flatten().cpu().float() for tensor in tensors])
