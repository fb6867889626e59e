"""Generate with llama.cpp: write a GPT as a GGUF file and run it in two ways."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import llama_cpp
from side_by_side import Side, time_in_turns

from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.gguf_export import write_gguf_file
from minigpt.exchange.gguf_tokenizer import build_vocabulary
from minigpt.exchange.huggingface_export import convert_to_gpt2
from minigpt.model.gpt import GPT
from minigpt.tokenizers.char import CharTokenizer


def write_model(model: GPT, path: Path, quantize: str | None) -> Path:
    """Write a GPT-2 for llama.cpp, in float32 or in a format such as "q8_0". Tokens are the characters from "!" on."""
    tokenizer = CharTokenizer.from_text("".join(chr(ord("!") + i) for i in range(model.config.vocab_size)))
    options = ExportOptions(quantize=quantize)
    vocabulary, weights = build_vocabulary(tokenizer), convert_to_gpt2(model)
    write_gguf_file(path, "benchmark", model.config, weights, vocabulary, 0, options)
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
