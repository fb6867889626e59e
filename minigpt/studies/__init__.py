"""Studies of models: what each idea is worth (`ladder`), what a run has learned (`look`), and two comparisons."""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.studies.learning_curves import plot_loss

__all__ = ["bit_depth", "ladder", "learning_curves", "look", "plot_loss", "tokenizer_comparison"]

__getattr__ = import_lazily(__name__, {"plot_loss": "learning_curves"})
