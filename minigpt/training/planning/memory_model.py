"""How much memory a training run needs, computed from its settings: weights, gradients, optimizer, activations.

The formula counts tensors only. Python, the libraries, a GPU's context and gaps between tensors come on top. A small
model that trains in compiled loops on a CPU (`compiled_loops`) needs less than the formula says.
`python benchmarks/plan.py` compares it with real steps: it is within 20% of their tensors' peak.

It follows Rajbhandari et al. 2020 ("ZeRO", section 3: 16 bytes a parameter) and Korthikanti et al. 2022 ("Reducing
Activation Recomputation in Large Transformer Models", section 4). B, T, C, H, V are model/gpt.py's; B is one GPU's
share of the batch, L is n_layer and P the number of parameters.
"""

from dataclasses import dataclass
from typing import Literal, Self

from minigpt.config import Config, ModelConfig

FLOAT = 4  # bytes of a float32
Parallel = Literal["single", "ddp", "fsdp"]  # one GPU; a whole model on each GPU; a part of the model on each GPU


@dataclass(frozen=True)
class ParameterCounts:
    """The number of a GPT's parameters: in one block, in all blocks, and outside them."""

    block: int
    blocks: int
    outside: int

    @property
    def total(self) -> int:
        """The number of all parameters."""
        return self.blocks + self.outside

    @classmethod
    def from_config(cls, model: ModelConfig) -> Self:
        """Count the parameters of the GPT that `minigpt.model.build` makes."""
        C, T, V = model.n_embd, model.block_size, model.vocab_size
        norm = 2 * C  # gain and bias
        attention = 3 * C * C + (3 * C if model.qkv_bias else 0) + C * C + C
        feed_forward = (4 * C * C + 4 * C) + (4 * C * C + C)
        head = 0 if model.tied_head else V * C + V
        block = norm + attention + norm + feed_forward
        return cls(block, model.n_layer * block, V * C + T * C + norm + head)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak of a training step.

    Attributes:
        weights: the parameters, with their 16-bit copies in bf16 and fp16.
        gradients: one number for each parameter.
        optimizer: AdamW's two averages for each parameter.
        exchange: DDP's buckets of gradients, or the blocks that FSDP has gathered.
        activations: what the forward pass keeps for the backward pass, with the logits.
        working: temporary tensors of the loss or of one block's backward pass, whichever is larger.
    """

    weights: int
    gradients: int
    optimizer: int
    exchange: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.exchange + self.activations + self.working


def estimate_memory(config: Config, gpus: int = 1, parallel: Parallel = "single") -> Memory:
    """Estimate the peak memory of a training step on the GPU with the largest share of a batch.

    Args:
        config: the training of a GPT with AdamW.
        gpus: how many GPUs share each batch.
        parallel: how they share the model.
    """
    model, counts = config.model, ParameterCounts.from_config(config.model)
    B = -(-config.training.batch_size // gpus)  # rounded up
    tokens = B * model.block_size
    number = _get_number_size(config)
    row = tokens * model.n_embd  # numbers in a (B, T, C) tensor

    held = -(-counts.total // gpus) if parallel == "fsdp" else counts.total  # parameters on this GPU
    copies = 2 * held if number == 2 else 0
    exchange = {
        "single": 0,
        "ddp": FLOAT * counts.total,
        "fsdp": FLOAT * (counts.outside + 3 * counts.block),  # two blocks' weights and one block's gradients
    }[parallel]

    block = _estimate_block_activations(config, B)
    logits = tokens * model.vocab_size
    recompute = config.training.checkpoint_activations
    kept = model.n_layer * (FLOAT * row if recompute else block)  # a recomputed block keeps its input only
    kept += (FLOAT + number) * row + number * logits  # the last norm's input and output, and the logits

    loss = 3 * FLOAT * logits  # log-probabilities, their gradient, and the logits' gradient
    backward = (8 * number + 2 * FLOAT) * row  # gradients of two (B, T, 4C) and of two residual (B, T, C)
    if recompute:
        backward += block
    return Memory(
        weights=FLOAT * held + copies,
        gradients=FLOAT * held,
        optimizer=2 * FLOAT * held,
        exchange=exchange,
        activations=kept,
        working=max(loss, backward),
    )


def _estimate_block_activations(config: Config, B: int) -> int:
    """Return the bytes that a block's forward pass keeps for its backward pass, for B windows."""
    model = config.model
    number = _get_number_size(config)
    row = B * model.block_size * model.n_embd
    residual = 2 * FLOAT * row  # the inputs of both layer norms
    norms = 2 * number * row
    attention = 4 * number * row  # queries, keys, values, and the weighted values
    attention += _count_attention_copies(config) * _count_attention_bytes(config, B)
    hidden = (4 if model.activation == "relu" else 8) * number * row  # (B, T, 4C); a GELU keeps its input too
    masks = 2 * row if model.dropout else 0  # a byte for each number: was it dropped?
    return residual + norms + attention + hidden + masks


def _get_number_size(config: Config) -> int:
    """Return the bytes of a number in matrix products."""
    return FLOAT if config.training.precision == "fp32" else 2


def _count_attention_copies(config: Config) -> int:
    """Return how many copies of the attention weights are kept. A GPU's FlashAttention keeps none."""
    if config.training.device == "cpu" and config.model.dropout:
        return 3  # before dropout, the mask, after dropout
    return 0


def _count_attention_bytes(config: Config, B: int) -> int:
    """Return the bytes of one copy of the attention weights (B, H, T, T)."""
    return FLOAT * B * config.model.n_head * config.model.block_size**2
