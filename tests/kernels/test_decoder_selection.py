"""Which compiled loops a model gets."""

import dataclasses

import torch
from naive_generation import SMALL, create_model
from torch import nn

from minigpt.acceleration import accelerate, describe_decoder
from minigpt.config import Config
from minigpt.kernels.decoder import Loops
from minigpt.kernels.decoder_selection import Limits, select_loops
from minigpt.model.gpt import GPT
from minigpt.model.quantization import quantize_layers

GPT2 = dataclasses.replace(SMALL, activation="gelu", qkv_bias=True, tied_head=True)
LIMITS = Limits(min_tokens=20)


def select(model: GPT, tokens: int, rows: int = 1, length: int = 0, **limits: int) -> Loops | None:
    return select_loops(model, rows, length, tokens, LIMITS._replace(**limits))


def test_the_loops_depend_on_the_number_of_tokens_and_the_room_in_the_window() -> None:
    model = create_model(SMALL)
    assert select(model, 19) is None
    assert select(model, 20) == Loops(parts=1, kind="row", window=False)
    assert select(model, 30) == Loops(parts=1, kind="row", window=True)
    assert select(model, 20, length=24) == Loops(parts=1, kind="row", window=True)
    assert select(model, 500, length=5, max_window=0) is None  # 19 places are left
    assert select(model, 500, length=4, max_window=0) == Loops(parts=1, kind="row", window=False)


def test_the_loops_depend_on_the_size_of_the_model() -> None:
    assert select(create_model(SMALL), 500, min_shared_weights=1) == Loops(parts=2, kind="row", window=True)
    one_head = create_model(dataclasses.replace(SMALL, n_head=1))
    assert select(one_head, 500, min_shared_weights=1) == Loops(parts=1, kind="row", window=True)
    assert select(create_model(SMALL), 500, max_weights=100) is None


def test_an_accelerated_or_quantized_model_has_loops_too() -> None:
    model = create_model(SMALL)
    accelerate(model, Config(model=SMALL))
    assert select(model, 20) == Loops(parts=1, kind="row", window=False)
    quantized = create_model(GPT2)
    quantize_layers(quantized, "int8")
    accelerate(quantized, Config(model=GPT2))
    assert select(quantized, 20) == Loops(parts=1, kind="row", window=False)


def test_several_texts_have_loops_where_the_model_is_narrow() -> None:
    assert select(create_model(SMALL), 10, rows=2) == Loops(parts=1, kind="rows", window=False)
    assert select(create_model(SMALL), 30, rows=2, min_shared_weights=1) == Loops(parts=1, kind="rows", window=True)
    assert select(create_model(SMALL), 20, rows=2, max_width=15) is None


def test_the_modern_architecture_has_loops_of_its_own() -> None:
    modern = create_model(dataclasses.replace(SMALL, architecture="modern"))
    accelerate(modern, Config(model=modern.config))
    assert select(modern, 20) == select(modern, 10, rows=2) == Loops(parts=1, kind="modern", window=False)
    assert select(modern, 20, max_width=15) is None
    modern.blocks[0].ffwd.shift.register_forward_hook(lambda *_: None)
    assert select(modern, 20) is None


def test_pytorch_decodes_what_the_loops_do_not_know() -> None:
    assert select(create_model(SMALL).double(), 20) is None
    hooked, other, adapted = create_model(SMALL), create_model(SMALL), create_model(SMALL)
    hooked.blocks[0].ffwd.register_forward_hook(lambda *_: None)
    other.ln_f.eps = 1e-6
    adapted.blocks[0].ffwd.up = nn.Sequential(adapted.blocks[0].ffwd.up)
    assert select(hooked, 500) is select(other, 500) is select(adapted, 500) is None


def test_a_record_says_how_text_is_generated() -> None:
    assert describe_decoder(create_model(SMALL)) == "compiled loops in 1 part"
    modern = create_model(dataclasses.replace(SMALL, architecture="modern"))
    assert describe_decoder(modern) == "compiled loops in 1 part"
    assert describe_decoder(create_model(SMALL), tokens=5) == "PyTorch"
    assert describe_decoder(torch.nn.Linear(1, 1)) == "PyTorch"
