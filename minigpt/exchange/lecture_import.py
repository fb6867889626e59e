"""Make a run of a model that the lecture's code has trained: its state dict, and the characters of its text."""

import re
from pathlib import Path

from torch import Tensor

from minigpt.config import ModelConfig
from minigpt.data.corpus import find_corpus
from minigpt.errors import ConfigError, ExchangeError
from minigpt.exchange.characters import make_char_tokenizer
from minigpt.exchange.imported_run import write_imported_run
from minigpt.exchange.imported_weights import build_imported_model, convert_tensor, require_tensors
from minigpt.exchange.pickles import load_checkpoint
from minigpt.model.gpt import GPT
from minigpt.model.language_model import TrainedModel
from minigpt.model.lecture import BigramLanguageModel
from minigpt.runs.run import Run
from minigpt.system.files import require_inside
from minigpt.system.json_files import read_foreign_json
from minigpt.system.safetensors_files import open_safetensors
from minigpt.tokenizers.base import MAX_TOKENIZER_BYTES
from minigpt.tokenizers.char import CharTokenizer

WEIGHTS, VOCABULARY = ("model.safetensors", "model.pt"), "vocabulary.json"


def import_lecture(source: str | Path, out: str | Path | None = None, data: str | Path | None = None) -> Run:
    """Make a run of a state dict of the lecture's `GPTLanguageModel` or `BigramLanguageModel`.

    Args:
        source: a .pt or .safetensors file, or a folder that `minigpt export --to lecture` wrote.
        out: the run's directory; runs/<name> by default.
        data: the text that the model was trained on, or a .json file with the list of its characters; by default the
            vocabulary.json beside the weights.

    Raises:
        ExchangeError: it is no state dict of the lecture, or does not fit the characters.
        FileError: a file cannot be read, or the run cannot be written.
    """
    path = Path(source)
    if path.is_dir():
        path = next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])
        require_inside(Path(source), [path, path.with_name(VOCABULARY)])
    model = load_lecture(path)
    vocabulary = path.with_name(VOCABULARY) if data is None else Path(data)
    if data is None and not vocabulary.exists():
        raise ExchangeError(
            f"{str(path)!r} holds no characters: name the text that it was trained on, or a .json file with the list "
            "of its characters, with --data"
        )
    tokenizer = read_characters(vocabulary)
    if tokenizer.vocab_size != model.config.vocab_size:
        sizes = f"it has {tokenizer.vocab_size:,} characters, and {str(path)!r} knows {model.config.vocab_size:,}"
        raise ExchangeError(f"{str(vocabulary)!r} does not fit: {sizes}; name another file with --data")
    return write_imported_run(model, tokenizer, source, out)


def load_lecture(path: Path) -> TrainedModel:
    """Load a state dict of the lecture: a GPT or a bigram model in evaluation mode, in float32.

    Raises:
        ExchangeError: it is no state dict of the lecture, or is damaged.
        FileError: the file cannot be read.
    """
    if path.suffix == ".safetensors":
        with open_safetensors(path, ExchangeError) as content:
            found = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    else:
        found = load_checkpoint(path)
    found = {name: tensor for name, tensor in require_tensors(found, path).items() if not name.endswith(".tril")}
    config = _find_config(found, path)
    expected = build_imported_model(config, f"{str(path)!r}").state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items() if not name.endswith(".tril")}
    for name in shapes.keys() ^ found.keys():
        problem = "is not complete: it has no" if name in shapes else "is no state dict of the lecture: it has"
        raise ExchangeError(f"{str(path)!r} {problem} {name!r}")
    weights = {name: convert_tensor(found[name], name, shape, path) for name, shape in shapes.items()}
    if config.architecture == "gpt":
        return GPT.from_lecture(weights).eval()
    bigram = BigramLanguageModel(config)
    bigram.load_state_dict(weights)
    return bigram.eval()


def _find_config(found: dict[str, Tensor], path: Path) -> ModelConfig:
    """Return the configuration of the lecture's model that has these tensors."""
    tokens, positions = (found.get(f"{kind}_embedding_table.weight") for kind in ("token", "position"))
    if tokens is None or tokens.dim() != 2 or (positions is not None and positions.dim() != 2):
        raise ExchangeError(
            f"{str(path)!r} is no state dict of the lecture: it has no token_embedding_table.weight of two dimensions"
        )
    try:
        if positions is None:
            return ModelConfig(architecture="bigram", vocab_size=len(tokens))
        return ModelConfig(
            implementation="lecture",
            vocab_size=len(tokens),
            block_size=len(positions),
            n_embd=tokens.shape[1],
            n_head=_count_names(found, r"blocks\.0\.sa\.heads\.\d+\.query\.weight"),
            n_layer=_count_names(found, r"blocks\.\d+\.ln1\.weight"),
        )
    except ConfigError as error:
        raise ExchangeError(f"{str(path)!r} is no state dict of the lecture: {error}") from None


def _count_names(found: dict[str, Tensor], pattern: str) -> int:
    """Return how many names match a pattern."""
    return sum(re.fullmatch(pattern, name) is not None for name in found)


def read_characters(path: Path) -> CharTokenizer:
    """Read the characters of a model: a list in a .json file, or all that occur in a text, sorted.

    Raises:
        ExchangeError: the list holds other things than characters, or one twice.
        DataError: the text is empty.
        FileError: the file cannot be read.
    """
    if path.suffix != ".json":
        return CharTokenizer.from_text(find_corpus(path).text)
    return make_char_tokenizer(read_foreign_json(path, MAX_TOKENIZER_BYTES), path)
