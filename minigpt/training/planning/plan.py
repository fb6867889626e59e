"""Compute the memory, communication, operations and time of a training run from its settings alone.

`minigpt plan` prints it. Nothing runs, so the machine need not exist. planning/forecast.py times real steps instead.
B, T, C, V are model/lecture.py's; L is n_layer and N the number of GPUs.
"""

from dataclasses import dataclass

from minigpt.config import Config, ModelConfig
from minigpt.errors import ConfigError
from minigpt.system.advice import format_setting
from minigpt.training.planning.machine import Machine
from minigpt.training.planning.memory_model import FLOAT, Memory, Parallel, ParameterCounts, estimate_memory

KERNELS_PER_BLOCK, KERNELS_OUTSIDE = 50, 50  # launched by forward, backward and optimizer (docs/performance.md)
LAUNCH_SECONDS = 5e-6  # to launch a kernel on a GPU; a small model waits for the launches, not for the arithmetic


@dataclass(frozen=True)
class Strategy:
    """One way to train the model, and what it takes.

    Attributes:
        parallel: "single" on one GPU; "ddp" with a copy of the model on each GPU; "fsdp" with a part of it on each.
        recompute: True if the backward pass computes the activations of a block again.
        memory: bytes on each GPU.
        bytes_sent: bytes that each GPU sends in a step. It receives as many.
        flops: floating-point operations of the whole training.
        seconds: the time of these operations, and no less than the time to launch the kernels. It leaves out
            evaluations, reading the data, and waiting for the other GPUs.
    """

    parallel: Parallel
    recompute: bool
    memory: Memory
    bytes_sent: int
    flops: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The size of a training run, and the strategies to choose from.

    Attributes:
        parameters: of the model.
        tokens_per_step: tokens that all GPUs read together in a step.
        tokens: tokens of the whole training.
        flops_per_token: operations of forward and backward, without recomputation.
        strategies: on one GPU, or by DDP and by FSDP; each without and with recomputed activations.
    """

    parameters: ParameterCounts
    tokens_per_step: int
    tokens: int
    flops_per_token: int
    strategies: list[Strategy]


def plan(config: Config, machine: Machine) -> Plan:
    """Plan a training run on a machine.

    Args:
        config: the training. The GPUs share the `batch_size` windows of each batch.
        machine: the GPUs.

    Raises:
        ConfigError: the batch has fewer windows than there are GPUs, or the formulas do not cover the training: they
            are for model/gpt.py and AdamW.
    """
    _require_covered(config)
    if config.training.batch_size < machine.gpus:
        raise ConfigError(
            f"batch_size must be at least the number of GPUs, but {config.training.batch_size:,} windows cannot be "
            f"shared by {machine.gpus:,} GPUs: raise batch_size, or take fewer GPUs"
        )
    parallels: tuple[Parallel, ...] = ("ddp", "fsdp") if machine.gpus > 1 else ("single",)
    tokens = config.training.max_iters * config.tokens_per_step
    strategies = []
    for parallel in parallels:
        for recompute in (False, True):
            variant = config.override(checkpoint_activations=recompute)
            flops = tokens * count_flops_per_token(config.model, recompute)
            strategies.append(
                Strategy(
                    parallel=parallel,
                    recompute=recompute,
                    memory=estimate_memory(variant, machine.gpus, parallel),
                    bytes_sent=count_bytes_sent_per_step(config, machine.gpus, parallel),
                    flops=flops,
                    seconds=max(flops / machine.compute_flops(config), estimate_launch_seconds(config)),
                )
            )
    return Plan(
        parameters=ParameterCounts.from_config(config.model),
        tokens_per_step=config.tokens_per_step,
        tokens=tokens,
        flops_per_token=count_flops_per_token(config.model),
        strategies=strategies,
    )


def _require_covered(config: Config) -> None:
    model, training = config.model, config.training
    if model.architecture != "gpt" or model.implementation != "fast" or model.quantization != "none":
        raise ConfigError("plan covers a GPT of model/gpt.py only: choose architecture gpt, implementation fast")
    if training.optimizer != "adamw" or training.max_minutes is not None:
        raise ConfigError(
            f"plan covers AdamW and a number of steps only: "
            f"choose optimizer adamw, and give {format_setting('max_iters')}"
        )


def count_flops_per_token(model: ModelConfig, recompute: bool = False) -> int:
    """Return the floating-point operations of training per token, in matrix products. All others are few.

    A weight takes one multiplication and one addition in the forward pass, and twice as many in the backward pass:
    6 per weight (Kaplan et al. 2020, "Scaling Laws", section 2.1). Attention multiplies queries by keys, and weights
    by values, T times C each in every block: 12 L T C (Chowdhery et al. 2022, "PaLM", appendix B, which ignores the
    mask too). Recomputation repeats the blocks' forward pass. It skips a block's last product unless dropout needs it.
    """
    C, T = model.n_embd, model.block_size
    block = 24 * C * C + 4 * T * C  # forward
    last_product = 8 * C * C
    again = (block if model.dropout else block - last_product) if recompute else 0
    return model.n_layer * (3 * block + again) + 6 * model.vocab_size * C


def estimate_launch_seconds(config: Config) -> float:
    """Return the time of a training run in which every kernel takes as long as its launch: a lower bound."""
    kernels = config.model.n_layer * KERNELS_PER_BLOCK + KERNELS_OUTSIDE
    return config.training.max_iters * config.training.gradient_accumulation * kernels * LAUNCH_SECONDS


def count_bytes_sent_per_step(config: Config, gpus: int, parallel: Parallel) -> int:
    """Return the bytes that each GPU sends in a step by ring collectives, as NCCL does (Patarasuk and Yuan 2009).

    An all-gather or a reduce-scatter of M bytes sends M (N - 1) / N from each GPU; an all-reduce sends twice that.
    DDP all-reduces the gradients once a step. FSDP gathers all weights in the forward pass, gathers the blocks' again
    in the backward pass, and reduce-scatters the gradients, for each of the gradient_accumulation batches.
    """
    counts = ParameterCounts.from_config(config.model)
    if parallel == "fsdp":
        numbers = config.training.gradient_accumulation * (counts.total + counts.blocks + counts.total)
    else:
        numbers = 2 * counts.total
    return FLOAT * numbers * (gpus - 1) // gpus
