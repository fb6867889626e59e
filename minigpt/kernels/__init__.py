"""Optional speed: hand-written gradients, oneDNN, Numba, CUDA graphs."""
