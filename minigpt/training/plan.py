"""What a training takes by size, computed before anything runs: memory, communication, FLOPs, hours.

training/forecast.py tries a training out on the machine that is there; this is the arithmetic for one that is not. B,
T, C, V are model/lecture.py's, L is n_layer, N the number of GPUs.
"""

from dataclasses import dataclass
from typing import get_args

from minigpt.config import Config, ModelConfig
from minigpt.errors import ConfigError
from minigpt.training.machine import Machine
from minigpt.training.memory_model import FLOAT, Memory, Parameters, Sharing, memory, parameters


@dataclass(frozen=True)
class Way:
    """One way to train the model.

    Attributes:
        sharing: "alone" on one GPU; or "ddp", everything whole on each; or "fsdp", everything cut into N parts.
        recomputed: whether activations are computed again in the backward pass, block by block.
        memory: bytes on each GPU.
        sent: bytes that each GPU sends in a step; it receives as many.
        flops: of the whole training.
        seconds: that those take.
    """

    sharing: Sharing
    recomputed: bool
    memory: Memory
    sent: int
    flops: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A training's size, and the ways to do it.

    Attributes:
        parameters: of the model.
        tokens_per_step: that all GPUs read together.
        tokens: of the whole training.
        flops_per_token: of forward and backward, nothing recomputed.
        ways: without and with recomputed activations, on one GPU, or by DDP and by FSDP.
    """

    parameters: Parameters
    tokens_per_step: int
    tokens: int
    flops_per_token: int
    ways: list[Way]


def plan(config: Config, machine: Machine) -> Plan:
    """The plan of that training on that machine.

    `config.training.batch_size` windows are shared out over the GPUs. Raises ConfigError for fewer windows than GPUs,
    and for a model other than model/gpt.py's.
    """
    model, training = config.model, config.training
    if model.architecture != "gpt" or model.implementation != "fast" or model.quantization != "none":
        raise ConfigError("what is planned is a GPT as model/gpt.py makes it: architecture gpt, implementation fast")
    if training.optimizer != "adamw" or training.max_minutes is not None:
        raise ConfigError("what is planned is a number of steps by AdamW: name --max-iters, and leave out muon")
    if training.batch_size < machine.gpus:
        few = f"{training.batch_size:,} cannot be shared out over {machine.gpus:,} GPUs"
        raise ConfigError(f"batch_size must be at least the number of GPUs, and {few}: raise it, or take fewer")
    sharings = get_args(Sharing)[1:] if machine.gpus > 1 else ("alone",)
    tokens = training.max_iters * config.tokens_per_step
    ways = []
    for sharing in sharings:
        for recomputed in (False, True):
            one = config.override(checkpoint_activations=recomputed)
            flops = tokens * flops_per_token(model, recomputed)
            held, sent = memory(one, machine.gpus, sharing), bytes_sent_per_step(config, machine.gpus, sharing)
            ways.append(Way(sharing, recomputed, held, sent, flops, flops / machine.reached(config)))
    return Plan(parameters(model), config.tokens_per_step, tokens, flops_per_token(model), ways)


def flops_per_token(model: ModelConfig, recomputed: bool = False) -> int:
    """Floating-point operations that training spends on a token, in matrix products, of which all else is a sliver.

    A weight costs a multiplication and an addition forward and twice as many backward, for the gradients of the
    weight and of what it multiplied: 6 a weight (Kaplan et al. 2020, "Scaling Laws", section 2.1). So do queries times
    keys, and weights times values, T times C each in every block: 12 L T C (Chowdhery et al. 2022, "PaLM", appendix
    B), as if no position were masked. To recompute the blocks would be their forward pass once more, 8 a weight; but
    autograd stops where it has what it needs, and a block's last product it needs only to know what was dropped.
    """
    C, T = model.n_embd, model.block_size
    forward = 24 * C * C + 4 * T * C  # of a block
    again = forward - (0 if model.dropout else 8 * C * C) if recomputed else 0
    return model.n_layer * (3 * forward + again) + 6 * model.vocab_size * C


def bytes_sent_per_step(config: Config, gpus: int, sharing: Sharing) -> int:
    """Bytes that each GPU sends in a step, and receives, in rings (Patarasuk and Yuan 2009), as NCCL makes them.

    To gather what is cut into N parts, or to sum up and keep a part, each sends (N - 1) / N of the whole; to sum up
    and have all, twice that. DDP does the last with the gradients, once a step. FSDP gathers the weights forward, those
    of the blocks again backward, and sums up and cuts the gradients, for each of gradient_accumulation batches.
    """
    p = parameters(config.model)
    if sharing == "fsdp":
        numbers = config.training.gradient_accumulation * (p.total + p.blocks + p.total)
    else:
        numbers = 2 * p.total
    return FLOAT * numbers * (gpus - 1) // gpus
