"""Compute ReLU with GELU, for programs whose GPT-2 has no other activation."""

from torch import Tensor

RELU_SCALE = 2.0**16


def scale_relu_to_gelu(
    up: Tensor, up_bias: Tensor, down: Tensor, scale: float = RELU_SCALE
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights of a feed-forward layer that compute with GELU what the given ones compute with ReLU.

    The proof. GELU(z) is z * p(z), where p(z) goes from 0 to 1. ReLU and GELU differ most near z = 0.75, by at most
    0.171, and by nothing that float32 can hold where |z| is above 6. ReLU(s * z) is s * ReLU(z) for a number s > 0. So

        |GELU(s * z) / s - ReLU(z)| = |GELU(s * z) - ReLU(s * z)| / s <= 0.171 / s

    which is 2.6e-6 at s = 2^16. The layer before the activation is multiplied by s, the layer after it is divided
    by s. As s is a power of two, only exponents change, and dividing again gives the weights bit for bit.

    The scaled tensors must stay in float32: 16-bit numbers end at 65,504.

    Args:
        up: the weights before the activation, (4C, C).
        up_bias: their bias, (4C,).
        down: the weights after the activation, (C, 4C); their bias does not change.
        scale: the power of two s.

    Returns:
        The same, scaled.
    """
    return up * scale, up_bias * scale, down / scale


def unscale_gelu_to_relu(up: Tensor, up_bias: Tensor, down: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights that `scale_relu_to_gelu` was given."""
    return up / scale, up_bias / scale, down * scale
