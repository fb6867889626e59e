"""The code blocks of the docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def find_blocks(language: str, text: str = README, *, quick_only: bool = False) -> list[str]:
    """Return all fenced blocks of a language; `quick_only` skips those after an HTML comment `<!-- slow -->`."""
    found = re.findall(rf"(<!-- slow -->\n)?^```{language}\n(.*?)^```", text, re.M | re.S)
    return [block for slow, block in found if not (slow and quick_only)]
