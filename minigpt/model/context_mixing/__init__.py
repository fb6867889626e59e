"""A context-mixing model: 37 experts that count, and a small network that weighs them at each decision.

Context mixing is how the best compressors predict text (Mahoney 2005, "Adaptive Weighing of Context Models for
Lossless Data Compression", the PAQ family). It has six ideas:

1. Decisions. A character is a path through a binary tree, and each step of the path is a decision with two outcomes.
   So every expert predicts one bit at a time. The tree is the Huffman code of the training text, so a frequent
   character needs few decisions. The probability of a character is the product along its path, so the
   probabilities of all characters sum to one.
2. Experts. Each expert looks at one part of the text, its context (contexts.py), and keeps one slot for each
   context and decision. The slot has the probability of a 1, an average over the decisions in this context.
3. Histories. The slot also has the last decisions themselves, such as 0, 0, 0. What follows "three times 0" is
   learned for each expert, from all its contexts together. So an expert learns how far to trust what it saw once.
4. Mixing. The experts' probabilities p become log(p / (1 - p)). Their weighted sum, squashed by the logistic function,
   is the mixture. The weights learn by gradient descent on the loss of each decision. There are several sets of
   weights, chosen by what is known of the place: the previous character, the length of the word, and so on. A second
   layer mixes the mixtures.
5. Correction. The last stage learns what really happened when the mixture said, say, 0.9 after this character.
6. Delay. A model that will read unknown text with fixed counts should learn its weights in the same situation. So in
   `fit`, the counts at each place come from the text up to `delay` characters before it. Without the delay the
   weights trust the long contexts too much, because a text repeats itself nearby.

Read contexts.py, then mixing.py. `ContextMixer` calls the functions of mixing.py directly, or compiled by Numba
(kernels/numba_context_mixing.py).
"""

from minigpt.model.context_mixing.contexts import EXPERTS, CharacterTable
from minigpt.model.context_mixing.mixer import ContextMixer, ContextMixingConfig

__all__ = ["EXPERTS", "CharacterTable", "ContextMixer", "ContextMixingConfig"]
