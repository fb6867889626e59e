"""Optional speed: hand-written gradients, oneDNN, Numba, CUDA graphs. Only `minigpt/acceleration.py` imports it."""

__all__: list[str] = []
