"""Advice for errors that learners often see, in addition to the message of Python or PyTorch."""

import re

from minigpt.learn.outcomes import Raised

_SHAPES = "Print both shapes: print(a.shape, b.shape)."
_ADVICE = (
    (r"EOF when reading a line|^BdbQuit", "A check has no keyboard: use print() instead of input() or breakpoint()."),
    (r"missing the required \"forward\"", "An nn.ModuleList cannot be called: use nn.Sequential, or loop over it."),
    (
        r"is not a Module subclass",
        "nn.Sequential takes modules one by one: nn.ReLU() with its brackets, and nn.Sequential(*modules) for a list.",
    ),
    (r"before Module\.__init__\(\) call", "super().__init__() must come first in __init__."),
    (r"leaf Variable that requires grad", "x += y changes the caller's tensor: write x = x + y."),
    (
        r"'tuple' object has no attribute|: 'int' and 'tuple'|indices must be integers or slices, not tuple",
        "A function returned several values here: take them apart, such as logits, loss = model(x, y).",
    ),
    (
        r"'NoneType' object has no attribute|NoneType' object is not",
        "A value is None here: look for the line that made it.",
    ),
    (
        r"Expected target size|multi-target not supported|Expected floating point type for target",
        "F.cross_entropy takes logits (N, V) and targets (N,): flatten B and T into N first.",
    ),
    (
        r"Index tensor must have the same number of dimensions",
        "gather needs an index with as many dimensions as the tensor: targets.unsqueeze(-1), or targets[..., None].",
    ),
    (
        r"shapes cannot be multiplied|Expected size for first two dimensions of batch2",
        f"For a @ b the last dimension of a must equal the one before the last of b. {_SHAPES}",
    ),
    (
        r"must match the size of tensor|must match except in dimension|shape mismatch",
        f"Two shapes do not fit. Is a slice [:T], a keepdim=True or a [:, None] missing? {_SHAPES}",
    ),
    (
        r"only integer tensors of a single element can be converted to an index|not Tensor$",
        "Only a tensor can be indexed with a tensor: torch.tensor(levels)[numbers].",
    ),
    (
        r"stack expects each tensor to be equal size",
        "A window runs over the end of the text: every start must be below len(data) - block_size.",
    ),
    (
        r"'torch.return_types.max' object",
        "max(dim=...) returns two things, the values and their places: take .values, or use amax.",
    ),
    (r"must be Tensor, not (int|float)", "A size is a Python number: write size ** 0.5, or math.sqrt(size)."),
    (
        r"(tuple|list|string) index out of range",
        "An index goes past the end: which is the last i for which i + 1 exists?",
    ),
    (r"probability tensor contains", "torch.multinomial takes probabilities: the softmax comes first."),
    (r"slice indices must be integers|cannot be interpreted as an integer", "A whole number is needed: int(...)."),
    (r"does not support the context manager protocol", "Brackets are missing: with torch.no_grad():"),
    (
        r"grad can be implicitly created only for scalar outputs",
        "backward() starts at one number, the loss: is it the mean, and not the logits?",
    ),
    (r"selected index k out of range", "topk cannot take more than there are: min(k, logits.shape[-1])."),
    (r"index out of range in self|out of bounds", "An index is larger than the table: which ids come in?"),
    (r"is invalid for input of size", "This shape needs another number of elements: count them."),
    (
        r"min\(\) (arg|iterable argument) is|max\(\) (arg|iterable argument) is",
        "There is nothing to choose from: stop the loop before.",
    ),
    (r"keys changed during iteration|changed size during iteration", "Build a new dict instead of changing this one."),
    (r"^KeyError", "The dict has no such key. Is it still empty at the first call?"),
    (r"^NameError|^UnboundLocalError", "Is the name spelled in another way elsewhere? Is self. missing before it?"),
    (r"is not iterable", "A list, a tuple or a dict is needed here. The keys and values of a dict are its .items()."),
    (
        r"missing \d+ required positional argument",
        "Arguments are missing. To hand a function over, leave the brackets out: self.apply(init_weights).",
    ),
    (r"unexpected keyword argument|positional arguments? but", "Look at the first line of what you call."),
)


def find_advice(raised: Raised) -> str:
    """Return what usually helps against an error, as a sentence, or an empty string."""
    text = f"{raised.kind}: {raised.message}"
    return next((advice for pattern, advice in _ADVICE if re.search(pattern, text)), "")
