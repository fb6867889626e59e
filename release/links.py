"""The links to the public copy, if there is one: they come from REPOSITORY in minigpt/version.py.

python release/links.py    # write them into the notebook and CITATION.cff, or take them out again
"""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "notebooks/mini_gpt.ipynb"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def list_urls(repository: str) -> dict[str, str]:
    """Return the links that PyPI and pip show.

    Args:
        repository: the address of the public copy on GitHub; empty if there is none.
    """
    if not repository:
        return {}
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/tree/main/docs",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def link_citation(text: str, repository: str) -> str:
    """Return CITATION.cff with the address of the public copy, or without one."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.M)
    return text + (f'repository-code: "{repository}"\n' if repository else "")


def link_first_cell(source: str, repository: str) -> str:
    """Return the notebook's first text with a link to Colab, or without one."""
    source = re.sub(r"^\[!\[Open in Colab\].*\n\n", "", source, flags=re.M)
    if not repository:
        return source
    place = repository.removeprefix("https://github.com/")
    link = f"[![Open in Colab]({BADGE})](https://colab.research.google.com/github/{place}/blob/main/{NOTEBOOK})"
    title, rest = source.split("\n\n", 1)
    return f"{title}\n\n{link}\n\n{rest}"


def link_installation(source: str, repository: str) -> str:
    """Return the notebook's first code with the address that pip installs from, or an empty one."""
    return re.sub(r'^REPOSITORY = ".*?"', f'REPOSITORY = "{repository}"', source, flags=re.M)


def write_links(root: Path, repository: str) -> None:
    """Write the links into the files of a checkout.

    Args:
        root: the checkout.
        repository: the address of the public copy; empty to take the links out.
    """
    import nbformat

    citation = root / "CITATION.cff"
    citation.write_text(link_citation(citation.read_text(encoding="utf-8"), repository), encoding="utf-8")
    notebook = nbformat.read(root / NOTEBOOK, as_version=4)
    text, code = notebook.cells[0], next(cell for cell in notebook.cells if cell.cell_type == "code")
    text.source = link_first_cell(text.source, repository)
    code.source = link_installation(code.source, repository)
    nbformat.write(notebook, root / NOTEBOOK)


if __name__ == "__main__":
    write_links(ROOT, runpy.run_path(str(ROOT / "minigpt" / "version.py"))["REPOSITORY"])
