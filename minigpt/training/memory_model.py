"""What a training holds in memory, computed from its settings: bytes on one of N GPUs, by what they are for.

Counted are the tensors of `Gradients` and `Optimizer`: weights, gradients and AdamW's two averages in float32, which
precision leaves as they are; what each block keeps for its backward pass; and what is there at a step's most crowded
moment besides. Not counted is what belongs to no tensor: Python, the libraries, a GPU's context, the allocator's gaps.

After Rajbhandari et al. 2020 ("ZeRO", section 3: 16 bytes a parameter) and Korthikanti et al. 2022 ("Reducing
Activation Recomputation in Large Transformer Models", section 4), for this project's blocks. `python
benchmarks/plan.py` holds it against real steps. B, T, C, H, V are model/gpt.py's, B a GPU's share of the batch; L
is n_layer and N is B * T.
"""

from dataclasses import dataclass
from typing import Literal

from minigpt.config import Config, ModelConfig
from minigpt.kernels.causal_attention import stretches
from minigpt.kernels.gpt_block import settings_suit

FLOAT = 4  # bytes of a float32, which weights, gradients, averages, sums and losses are
Sharing = Literal["alone", "ddp", "fsdp"]  # one GPU; everything whole on each; everything cut into N parts


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model learns: in each of its blocks, in all of them, and outside them."""

    block: int
    blocks: int
    outside: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.blocks + self.outside


def parameters(model: ModelConfig) -> Parameters:
    """The parameters of a GPT, exactly as `build` makes it.

    A block's matrices are (3C, C) for queries, keys and values, (C, C) after attention, (4C, C) and (C, 4C).
    """
    C, T, V = model.n_embd, model.block_size, model.vocab_size
    norm = 2 * C  # gain and bias
    attention = 3 * C * C + (3 * C if model.qkv_bias else 0) + C * C + C
    feed_forward = (4 * C * C + 4 * C) + (4 * C * C + C)
    head = 0 if model.tied_head else V * C + V
    block = norm + attention + norm + feed_forward
    return Parameters(block, model.n_layer * block, V * C + T * C + norm + head)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the most crowded moment of a step.

    Attributes:
        weights: the parameters that lie there.
        gradients: of those.
        averages: AdamW's two, of gradients and of their squares.
        exchange: copies for other GPUs: DDP's buckets of gradients, or the blocks that FSDP has gathered whole.
        activations: what the forward pass keeps for the backward pass, with the logits.
        passing: what comes and goes at that moment: the loss's own, a block computed again, gradients on their way.
        moment: which it is: of the backward pass of the "loss", the "head", the last "block", the "next block", the
            "block's end" or the "embedding".
    """

    weights: int
    gradients: int
    averages: int
    exchange: int
    activations: int
    passing: int
    moment: str

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.averages + self.exchange + self.activations + self.passing


@dataclass(frozen=True)
class Sizes:
    """Bytes of what passes through a model on one GPU.

    Attributes:
        rows: (N, C), one number for each position and channel, in the precision of matrix products.
        rows32: the same in float32, as the sums are to which each block adds.
        pairs: (B, H, T, T), in float32: how much each position heeds each other one.
        heeded: of those, the ones that the written-out attention computes.
        at_once: of those, the ones of its longest stretch.
        logits: (N, V), in the precision of matrix products.
        loss: (N, V), in float32, as the loss is computed.
        matrix: (C, C), in float32.
        table: (V, C), in float32.
        cast: of a float32 number's rounded copy, 0 where nothing is rounded.
        per_position: (N,), in float32.
    """

    rows: int
    rows32: int
    pairs: int
    heeded: int
    at_once: int
    logits: int
    loss: int
    matrix: int
    table: int
    cast: int
    per_position: int


def sizes(config: Config, gpus: int) -> Sizes:
    """Those of the GPU with the largest share of each batch."""
    m = config.model
    B = -(-config.training.batch_size // gpus)
    N = B * m.block_size
    cast = 0 if config.training.precision == "fp32" else 2  # autocast rounds what matrices multiply to 16 bits
    number = cast or FLOAT
    stretched = [(end - start) * end for start, end in stretches(m.block_size)]
    return Sizes(
        rows=number * N * m.n_embd,
        rows32=FLOAT * N * m.n_embd,
        pairs=FLOAT * B * m.n_head * m.block_size**2,
        heeded=FLOAT * B * m.n_head * sum(stretched),
        at_once=FLOAT * B * m.n_head * max(stretched),
        logits=number * N * m.vocab_size,
        loss=FLOAT * N * m.vocab_size,
        matrix=FLOAT * m.n_embd**2,
        table=FLOAT * m.vocab_size * m.n_embd,
        cast=cast,
        per_position=FLOAT * N,
    )


def attention_kept(config: Config, s: Sizes) -> int:
    """Bytes that attention keeps for backward: queries, keys, values, what was gathered, and what tells the weights.

    The fused operation keeps one number for each row of weights and computes them again (Dao 2023,
    "FlashAttention-2"). On a CPU the written-out block keeps them, and with dropout PyTorch does, in float32: as they
    were, which were dropped, and what is left.
    """
    if settings_suit(config, config.training.device):
        return 4 * s.rows + s.heeded
    if config.training.device == "cpu" and config.model.dropout:
        return 3 * s.rows32 + s.rows + 3 * s.pairs
    return 4 * s.rows + config.model.n_head * s.per_position


def block_kept(config: Config, s: Sizes) -> int:
    """Bytes that a block keeps for backward.

    Both sums in float32, the layer norms' results and their mean and spread, attention's, and the feed-forward's
    4C, which a GELU needs before and after it, a ReLU only after. Dropout keeps which were dropped, a byte each on a
    GPU. Autocast keeps its copies of the matrices.
    """
    norms = 2 * s.rows32 + 2 * s.rows + 4 * s.per_position
    hidden = (4 if config.model.activation == "relu" else 8) * s.rows
    dropped = s.rows if config.training.device == "cpu" else s.rows32 // FLOAT
    masks = 2 * dropped if config.model.dropout else 0
    copies = 12 * s.matrix * s.cast // FLOAT
    return norms + attention_kept(config, s) + hidden + masks + copies


def block_passing(config: Config, s: Sizes) -> int:
    """Bytes that come and go in a block's backward pass, at most, beside the gradient of its result.

    A written-out block lets go of nothing before its end but of what attention needs for itself, so most is there in
    the midst of attention or at that end. Autograd lets go of each operation's own; most is there
    when the gradient passes the nonlinearity, 4C wide, or where that of the last matrix is made.
    """
    if settings_suit(config, config.training.device):
        return max(11 * s.rows + 2 * s.at_once + 9 * s.matrix, 13 * s.rows + 12 * s.matrix)
    relu = config.model.activation == "relu"
    rounded = s.rows if s.cast or config.model.dropout else 0  # the gradient in the product's precision, or masked
    at_matrix = 4 * s.rows + 4 * s.matrix * (FLOAT + s.cast) // FLOAT
    at_nonlinearity = 8 * s.rows - (0 if relu else 4 * s.rows)
    return rounded + max(at_matrix, at_nonlinearity)


def moments(config: Config, gpus: int, sharing: Sharing) -> dict[str, tuple[int, int, int]]:
    """Bytes at each moment that may be the most crowded: the exchange's, the activations' and what passes.

    DDP copies gradients into buckets, which it sends (Li et al. 2020, "PyTorch Distributed", section 3.2). FSDP2, with
    `fully_shard` for each block and for the model, holds whole what lies outside the blocks, from the forward pass
    to the end of the backward pass, one block, the next one on its way, and the gradients of the block before, on
    theirs (Zhao et al. 2023, "PyTorch FSDP", section 3.3).
    """
    m, s, p = config.model, sizes(config, gpus), parameters(config.model)
    recomputed = config.training.checkpoint_activations
    again = block_kept(config, s) if recomputed else 0
    block = s.rows32 if recomputed else block_kept(config, s)  # its input alone, or all that it keeps
    blocks = m.n_layer * block
    last = s.rows32 + s.rows + 2 * s.per_position + s.table * s.cast // FLOAT  # the last norm's and the head's
    ids = 4 * s.per_position  # of 8 bytes, of inputs and of targets
    copies = 12 * m.n_layer * s.matrix * s.cast // FLOAT if recomputed else 0  # autocast's, until forward ends
    head = s.table * (FLOAT + s.cast) // FLOAT
    waiting = s.table if m.tied_head or sharing == "fsdp" else 0  # the head's gradient, until the embedding has its own
    both = 2 * s.table if m.tied_head else s.table  # the embedding's, and the sum of the two if they are one table's
    passing = waiting + again + s.rows32 + block_passing(config, s)

    one, rest = FLOAT * p.block, FLOAT * p.outside
    ddp = FLOAT * p.total if sharing == "ddp" else 0
    fsdp = int(sharing == "fsdp")
    found = {
        "loss": (ddp + fsdp * (rest + one), blocks + last + ids + s.logits, max(3 * s.loss, 2 * s.loss + copies)),
        "head": (ddp + fsdp * (rest + one), blocks + last + ids + s.logits, s.logits + s.rows + head),
        "block": (ddp + fsdp * (rest + 2 * one), blocks + ids + s.logits, passing),
        "embedding": (ddp + fsdp * (rest + rest // gpus + one), ids + s.logits, waiting + s.rows32 + both),
    }
    if sharing == "fsdp" and m.n_layer > 1:
        gathered = rest + 3 * one
        found["next block"] = (gathered, blocks - block + ids + s.logits, passing)
        found["block's end"] = (gathered, blocks - 2 * block + ids + s.logits, waiting + s.rows32 + one)
    return found


def memory(config: Config, gpus: int, sharing: Sharing) -> Memory:
    """What a GPU holds at the most crowded moment of any step but the first, which has no averages yet."""
    numbers = parameters(config.model).total
    held = FLOAT * (-(-numbers // gpus) if sharing == "fsdp" else numbers)
    found = moments(config, gpus, sharing)
    moment = max(found, key=lambda name: sum(found[name]))
    return Memory(held, held, 2 * held, *found[moment], moment)
