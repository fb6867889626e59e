"""The names of tensors and keys in a GGUF file of the architecture gpt2."""

from minigpt.config import ModelConfig
from minigpt.model.gpt2_names import map_gpt2_names

MODEL = "model.gguf"  # the file in an exported folder
RELU_SCALE_KEY = "mini_gpt.relu_scale"  # the number that `relu_as_gelu` scaled by; ours, other programs skip it
SENTENCEPIECE_KEY = "mini_gpt.sentencepiece_model"  # the content of tokenizer.model; ours too

_OUTER = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
_BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def map_gguf_names(config: ModelConfig) -> dict[str, str]:
    """Return GGUF's name for each of GPT-2's names, such as "blk.0.attn_norm.bias" for "h.0.ln_1.bias"."""
    return {name: _rename(name) for name in map_gpt2_names(config).values()}


def _rename(name: str) -> str:
    *place, kind = name.split(".")
    if place[0] in _OUTER:
        return f"{_OUTER[place[0]]}.{kind}"
    return f"blk.{place[1]}.{_BLOCK['.'.join(place[2:])]}.{kind}"
