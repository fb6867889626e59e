"""Export a run as a folder with `onnx/model.onnx`, which ONNX Runtime opens, and for a GPT transformers.js too."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from minigpt.errors import MissingExtraError
from minigpt.exchange.export_check import (
    FEWER_BITS,
    MAX_DIFFERENCE,
    TOKENS_FOR_LOSS,
    LogitComparison,
    choose_check_ids,
    require_equal_logits,
)
from minigpt.exchange.export_model import copy_model
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.huggingface_config import (
    TOKENIZER_FILES,
    describe_gpt2,
    find_begin_and_end,
    write_json,
    write_tokenizer_files,
)
from minigpt.exchange.huggingface_tokenizer import UNKNOWN_TOKEN_LIMIT, should_add_unknown_token
from minigpt.exchange.model_card import format_model_card
from minigpt.exchange.onnx_model import OnnxSignature, make_signature
from minigpt.exchange.onnx_reader import OnnxReader
from minigpt.model.language_model import TrainedModel
from minigpt.runs.run import Run
from minigpt.system.files import create_folder, explain_os_errors, write_atomic

MODEL, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"  # the names that transformers.js looks for
FILES = (MODEL, QUANTIZED, "config.json", *TOKENIZER_FILES, "README.md")
QUANTIZATIONS = ("int8",)


def write_onnx(run: Run, folder: Path, options: ExportOptions) -> None:
    """Write the model, its config.json, and the tokenizer.

    The arguments and errors are those of `Format.write`. Raise MissingExtraError without onnx or onnxscript.
    """
    model = copy_model(run, options.dequantize)
    create_folder(folder / "onnx")
    write_tokenizer_files(run, folder)
    write_json(folder / "config.json", _describe_model(run, model))
    write_atomic(folder / MODEL, convert_to_onnx(make_signature(model)))
    if options.quantize is not None:
        with explain_os_errors("write", folder / QUANTIZED):
            _quantize(folder / MODEL, folder / QUANTIZED)
            (folder / MODEL).unlink()
    write_atomic(folder / "README.md", _format_card(run, options).encode())


def check_onnx(run: Run, folder: Path, options: ExportOptions) -> LogitComparison | None:
    """Open the model in ONNX Runtime, and compare its logits with the run's: those of a prompt, and those with a cache.

    Returns:
        The comparison, or None if onnxruntime is not installed.

    Raises:
        ExchangeError: the logits are others.
    """
    try:
        reader = OnnxReader(folder / (QUANTIZED if options.quantize else MODEL))
    except ImportError:
        return None
    ids = choose_check_ids(run, TOKENS_FOR_LOSS if options.quantize else 0)
    half = ids.shape[1] // 2
    parts = [part for part in (ids[:, :half], ids[:, half : half + 1], ids[:, half + 1 :]) if part.shape[1]]
    theirs = torch.cat([reader.read(part) for part in parts], dim=1)
    return require_equal_logits(theirs, run, ids, "onnxruntime", FEWER_BITS if options.quantize else MAX_DIFFERENCE)


def convert_to_onnx(signature: OnnxSignature) -> bytes:
    """Return a model in ONNX's format. Raise MissingExtraError if onnx or onnxscript is not installed."""
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "onnx") from None
    with _silence_exporter(), torch.no_grad():
        program = torch.onnx.export(
            signature.model.eval(),
            signature.arguments,
            dynamo=True,
            dynamic_shapes=signature.dynamic_shapes,
            input_names=signature.inputs,
            output_names=signature.outputs,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # where in the Python code a node is from, with this machine's folders
    return proto.SerializeToString()


def _quantize(path: Path, out: Path) -> None:
    """Write a model with matrices in 8 bits."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    # Signed weights overflow on processors without VNNI, which made the difference ten times as large.
    with _silence_exporter():
        quantize_dynamic(path, out, per_channel=True, weight_type=QuantType.QUInt8)


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Hide the exporter's messages about itself, within the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _describe_model(run: Run, model: TrainedModel) -> dict[str, object]:
    """Return the content of config.json."""
    config = model.config
    if config.architecture == "gpt":
        return describe_gpt2(config, find_begin_and_end(run))
    sizes = ("vocab_size", "block_size", "n_embd", "n_head", "n_layer")
    shape = {name: getattr(config, name) for name in sizes} if config.architecture == "modern" else {}
    return {"model_type": f"minigpt-{config.architecture}", "vocab_size": config.vocab_size, **shape}


def _format_card(run: Run, options: ExportOptions) -> str:
    """Return the model card."""
    name = QUANTIZED if options.quantize else MODEL
    usage = f"""With ONNX Runtime in Python, token ids to logits:

```python
import onnxruntime

session = onnxruntime.InferenceSession({name!r})
print([(tensor.name, tensor.shape) for tensor in session.get_inputs()])
```

`past_key_values.0.key` of a call is `present.0.key` of the call before, and so on; in the first call its dimension
`past` is 0."""
    limits = [f"- A prompt and its continuation have at most {run.config.model.block_size:,} tokens together."]
    is_gpt = run.config.model.architecture == "gpt"
    if is_gpt:
        dtype = "q8" if options.quantize else "fp32"
        usage += f"""

With transformers.js:

```js
import {{ pipeline }} from "@huggingface/transformers";

const write = await pipeline("text-generation", "PATH OF THIS FOLDER", {{ dtype: "{dtype}" }});
console.log(await write("the", {{ max_new_tokens: 20 }}));
```"""
    elif run.config.model.architecture == "modern":
        usage += " `past_shift.0` is `present_shift.0` of the call before, and zeros in the first call."
        limits.append("- All texts of a batch have the same length.")
    if should_add_unknown_token(run.tokenizer):
        limits.append(UNKNOWN_TOKEN_LIMIT)
    return format_model_card(run, usage, "\n".join(limits), "transformers.js" if is_gpt else None)
