"""Studies of models: what each idea is worth (`ladder`), what a run has learned (`look`), and two comparisons."""

__all__ = ["bit_depth", "ladder", "look", "tokenizer_comparison"]
