"""Text corpora, the split into training and validation, and batches of token ids.

The classes are imported when they are first used: `import minigpt.data` does not load PyTorch.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.data.corpus import Corpus, find_corpus, find_data
    from minigpt.data.dataset import Dataset
    from minigpt.data.prepare import PrepareSettings, prepare_corpus
    from minigpt.data.prepared_data import PreparedData

__all__ = ["Corpus", "Dataset", "PrepareSettings", "PreparedData", "find_corpus", "find_data", "prepare_corpus"]

_MODULES = {
    "Corpus": "corpus",
    "Dataset": "dataset",
    "PrepareSettings": "prepare",
    "PreparedData": "prepared_data",
    "find_corpus": "corpus",
    "find_data": "corpus",
    "prepare_corpus": "prepare",
}

__getattr__ = import_lazily(__name__, _MODULES)
