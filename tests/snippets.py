"""The code in the docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    """All that is fenced as that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
