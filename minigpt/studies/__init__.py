"""Studies of models: what each idea is worth (`ladder`), what a run has learned (`look`), and two comparisons.

The functions below look inside a run and return tensors. The playground of `minigpt serve` shows the same figures.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.studies.learning_curves import plot_loss
    from minigpt.studies.lens import logit_lens
    from minigpt.studies.look.attention import attention_maps
    from minigpt.studies.next_token import next_token_distribution
    from minigpt.studies.token_predictions import predict_text
    from minigpt.studies.token_stream import stream_tokens

__all__ = [
    "attention_maps",
    "bit_depth",
    "ladder",
    "learning_curves",
    "logit_lens",
    "look",
    "next_token_distribution",
    "plot_loss",
    "predict_text",
    "selfcheck",
    "stream_tokens",
    "tokenizer_comparison",
]

_MODULES = {
    "attention_maps": "look.attention",
    "logit_lens": "lens",
    "next_token_distribution": "next_token",
    "plot_loss": "learning_curves",
    "predict_text": "token_predictions",
    "stream_tokens": "token_stream",
}

__getattr__ = import_lazily(__name__, _MODULES)
