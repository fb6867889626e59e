"""Generate with llama.cpp: write a GPT as a GGUF file and run it in two ways."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from side_by_side import Side, time_in_turns

from minigpt.exchange.gguf_names import map_gguf_names
from minigpt.exchange.huggingface_export import convert_to_gpt2
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import is_transposed

Q8 = gguf.GGMLQuantizationType.Q8_0


def write_gguf(model: GPT, path: Path, quantized: bool) -> Path:
    """Write the model's weights for llama.cpp, in float32 or 8 bits; its characters become byte-level tokens."""
    config, writer = model.config, gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(0x21 + i).encode() for i in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["! !"])  # never applies, but llama.cpp needs at least one
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = map_gguf_names(config)
    for theirs, tensor in convert_to_gpt2(model).items():
        matrix = tensor.T if is_transposed(theirs) else tensor  # (outputs, inputs)
        values = np.ascontiguousarray(matrix.detach().numpy())
        if quantized and values.ndim == 2 and theirs != "wpe.weight":
            writer.add_tensor(names[theirs], gguf.quants.quantize(values, Q8), raw_dtype=Q8)
        else:
            writer.add_tensor(names[theirs], values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def open_model(path: Path, threads: int) -> llama_cpp.Llama:
    """Open the file with the model's own context length."""
    return llama_cpp.Llama(str(path), n_ctx=0, n_threads=threads, n_threads_batch=threads, verbose=False, seed=0)


def choose_llama_threads(make: Callable[[int], Callable[[], object]]) -> Side:
    """Return the side on the number of llama.cpp's threads that makes it fastest."""
    sides = {threads: Side(make(threads), threads) for threads in (1, 2)}
    timings = time_in_turns({str(threads): side for threads, side in sides.items()}, rounds=3, seconds=0.4)
    return sides[int(min(timings, key=lambda threads: timings[threads].seconds))]


def prepare_llama_generate(path: Path, tokens: int) -> Side:
    """Return the loop of llama.cpp's Python package: evaluate and sample one token after another."""

    def make(threads: int) -> Callable[[], object]:
        llama = open_model(path, threads)

        def work() -> None:
            llama.reset()
            written = llama.generate([1], top_k=0, top_p=1.0, min_p=0.0, temp=1.0, repeat_penalty=1.0)
            for _ in range(tokens):
                next(written)

        return work

    return choose_llama_threads(make)


def prepare_llama_decode(path: Path, tokens: int) -> Side:
    """Return llama.cpp's call for one token, repeated without sampling."""

    def make(threads: int) -> Callable[[], object]:
        llama = open_model(path, threads)
        context = llama._ctx.ctx
        token = (ctypes.c_int32 * 1)(1)

        def work() -> None:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            for _ in range(tokens):
                if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)):
                    raise RuntimeError("llama_decode failed")

        work.llama = llama  # type: ignore[attr-defined]  # keeps it from being garbage-collected
        return work

    return choose_llama_threads(make)
