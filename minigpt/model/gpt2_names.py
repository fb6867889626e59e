"""The names that transformers' GPT-2 gives to the tensors of our GPT.

Two modules use them: adapters in PEFT's format, and the import and export of whole models. GPT-2 stores its matrices
as (inputs, outputs), which is the transpose of what `nn.Linear` stores.
"""

import re

from minigpt.config import ModelConfig

BLOCK_NAMES = {  # a layer within a block: our name and GPT-2's
    "ln1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "ln2": "ln_2",
    "ffwd.up": "mlp.c_fc",
    "ffwd.down": "mlp.c_proj",
}
OUTER_NAMES = {  # a tensor outside the blocks: our name and GPT-2's
    "token_embedding_table.weight": "wte.weight",
    "position_embedding_table.weight": "wpe.weight",
    "ln_f.weight": "ln_f.weight",
    "ln_f.bias": "ln_f.bias",
}


def map_gpt2_names(config: ModelConfig) -> dict[str, str]:
    """Return a mapping from our parameter names to GPT-2's.

    Args:
        config: the sizes of the model; a head that is not tied has a name of its own.

    Returns:
        For example {"blocks.0.ln1.weight": "h.0.ln_1.weight", ...}.
    """
    names = dict(OUTER_NAMES)
    for layer in range(config.n_layer):
        for ours, theirs in BLOCK_NAMES.items():
            names |= {f"blocks.{layer}.{ours}.{part}": f"h.{layer}.{theirs}.{part}" for part in ("weight", "bias")}
    return names if config.tied_head else names | {"lm_head.weight": "lm_head.weight"}


def is_transposed(gpt2_name: str) -> bool:
    """Return True for a tensor that GPT-2 stores transposed."""
    return re.search(r"(attn|mlp)\.c_\w+\.weight$", gpt2_name) is not None
