"""What a user can choose about an export."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportOptions:
    """How to write an export.

    Attributes:
        dequantize: whether to write a quantized run's matrices in float32.
        quantize: a number format with fewer bits that the format has, such as "q8_0"; None for float32.
    """

    dequantize: bool = False
    quantize: str | None = None
