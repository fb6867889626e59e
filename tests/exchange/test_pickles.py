"""No code of a pickle runs, wherever it is in a .pt or .pkl file."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import ExchangeError, FileError
from minigpt.exchange.lecture_import import load_lecture
from minigpt.exchange.nanogpt_import import load_nanogpt, read_vocabulary
from minigpt.exchange.pickles import load_checkpoint, load_vocabulary


class Payload:
    """An object whose pickle calls a function when it is opened."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda payload: payload,
    "a key": lambda payload: {payload: 1},
    "a value": lambda payload: {"model": {"a": torch.ones(1)}, "model_args": {"n_layer": payload}, "itos": payload},
    "deep": lambda payload: {"itos": {0: {0: {0: payload}}}, "model": {"a": {"b": payload}}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("function", [os.system, os.mkdir, exec, eval], ids=lambda function: function.__name__)
def test_a_payload_never_runs(place: str, function: Callable, tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = f"__import__('os').mkdir({str(made)!r})"
    argument = {os.system: f"mkdir {made}", os.mkdir: str(made)}.get(function, code)
    content = PLACES[place](Payload(function, argument))
    for protocol in (0, 2, 4):
        (tmp_path / "meta.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        for read in (load_vocabulary, read_vocabulary):
            with pytest.raises(ExchangeError, match="a pickle can run any code"):
                read(tmp_path / "meta.pkl")
    for is_zip in (True, False):
        torch.save(content, tmp_path / "ckpt.pt", _use_new_zipfile_serialization=is_zip)
        message = (
            "more than tensors and plain values, so it is not opened" if is_zip else "no .pt file that PyTorch 1.6"
        )
        for load in (load_checkpoint, load_nanogpt, load_lecture):
            with pytest.raises(ExchangeError, match=message) as caught:
                load(tmp_path / "ckpt.pt")
            assert "\n" not in str(caught.value)
    assert not made.exists()
    pickle.loads((tmp_path / "meta.pkl").read_bytes())  # the payload is a real one
    assert made.exists()


def test_a_pt_file_needs_a_pytorch_that_reads_it_safely(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    for version in ("2.5.1", "2.9.1+cpu"):
        with pytest.raises(ExchangeError, match=rf"in PyTorch {version[:3]}.*; install PyTorch 2\.10 or later"):
            load_checkpoint(tmp_path / "a.pt", version)
    for version in ("2.10.0", "2.13.0+cpu", "3.0.0a0+git"):
        assert torch.equal(load_checkpoint(tmp_path / "a.pt", version)["a"], torch.ones(2))


def test_a_compressed_pt_file_is_refused_as_it_could_fill_the_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert (tmp_path / "b.pt").stat().st_size < 2**16
    with pytest.raises(ExchangeError, match=r"is compressed, which torch\.save never does"):
        load_checkpoint(tmp_path / "b.pt")


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for read in (load_checkpoint, load_vocabulary):
        for path in (tmp_path, tmp_path / "nothing"):
            with pytest.raises((ExchangeError, FileError), match=str(path)):
                read(path)
