"""The compiled context-mixing model against the plain one."""

import numpy as np
import pytest
from conftest import make_text

from minigpt.acceleration import compile_context_mixing
from minigpt.model.context_mixing import CharacterTable, ContextMixer, ContextMixingConfig


@pytest.mark.long  # Numba compiles for 20 seconds; the plain functions are the same ones
def test_the_compiled_model_gives_the_same_probabilities() -> None:
    text = make_text(400)
    characters = sorted(set(text))
    ids = [characters.index(character) for character in text]
    table, config = CharacterTable.from_characters(characters), ContextMixingConfig(len(characters), delay=5)
    functions = compile_context_mixing()
    assert functions is not None
    plain, compiled = (ContextMixer.fit(ids[:150], table, config, which) for which in (None, functions))
    np.testing.assert_array_equal(compiled.memory.slots["history"], plain.memory.slots["history"])
    for place in (0, 7, 150):
        np.testing.assert_allclose(compiled.log_probs(ids[:place]), plain.log_probs(ids[:place]), rtol=0, atol=1e-9)
    np.testing.assert_allclose(compiled.learn(ids[150:200]), plain.learn(ids[150:200]), rtol=0, atol=1e-9)
    np.testing.assert_allclose(compiled.token_losses(ids[200:250]), plain.token_losses(ids[200:250]), rtol=0, atol=1e-9)
