"""The code blocks of the docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def find_blocks(language: str, text: str = README, *, quick_only: bool = False) -> list[str]:
    """Return all fenced blocks of a language; `quick_only` skips those after an HTML comment `<!-- slow -->`."""
    found = re.findall(rf"(<!-- slow -->\n)?^```{language}\n(.*?)^```", text, re.M | re.S)
    return [block for slow, block in found if not (slow and quick_only)]


def read_table(page: Path, first: str) -> list[dict[str, str]]:
    """Return the rows of the table whose first column has this title: the cells by the titles of their columns."""
    found = re.search(rf"^\| {first} \|.*\n(?:\|.*\n)+", page.read_text(), re.M)
    assert found
    lines = found[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]
