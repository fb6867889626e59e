"""The models: tensors in, tensors out.

The names are imported when they are first used, so that nothing is loaded that a command does not need.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.model.gpt import GPT
    from minigpt.model.kv_cache import ContextWindow, KVCache
    from minigpt.model.language_model import LanguageModel, TrainedModel, build, count_parameters, get_model_class
    from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
    from minigpt.model.meta_init import build_empty_model
    from minigpt.model.modern import Modern
    from minigpt.model.ngram import NGramModel
    from minigpt.model.quantization import (
        Linear4bit,
        Linear8bit,
        dequantize_int8,
        dequantize_nf4,
        quantize_int8,
        quantize_layers,
        quantize_model,
        quantize_nf4,
    )

__all__ = [
    "GPT",
    "BigramLanguageModel",
    "ContextWindow",
    "GPTLanguageModel",
    "KVCache",
    "LanguageModel",
    "Linear4bit",
    "Linear8bit",
    "Modern",
    "NGramModel",
    "TrainedModel",
    "build",
    "build_empty_model",
    "count_parameters",
    "dequantize_int8",
    "dequantize_nf4",
    "get_model_class",
    "quantize_int8",
    "quantize_layers",
    "quantize_model",
    "quantize_nf4",
]

_MODULES = {
    "BigramLanguageModel": "lecture",
    "ContextWindow": "kv_cache",
    "GPT": "gpt",
    "GPTLanguageModel": "lecture",
    "KVCache": "kv_cache",
    "LanguageModel": "language_model",
    "Linear4bit": "quantization",
    "Linear8bit": "quantization",
    "Modern": "modern",
    "NGramModel": "ngram",
    "TrainedModel": "language_model",
    "build": "language_model",
    "build_empty_model": "meta_init",
    "count_parameters": "language_model",
    "dequantize_int8": "quantization",
    "dequantize_nf4": "quantization",
    "get_model_class": "language_model",
    "quantize_int8": "quantization",
    "quantize_layers": "quantization",
    "quantize_model": "quantization",
    "quantize_nf4": "quantization",
}

__getattr__ = import_lazily(__name__, _MODULES)
