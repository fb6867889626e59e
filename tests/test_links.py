"""The links to a public copy come from one constant, and are left out while it is empty."""

import re
from pathlib import Path

import nbformat
import yaml
from test_distribution import load_script

from minigpt.version import REPOSITORY, __version__

ROOT = Path(__file__).parent.parent
LINKS = load_script("links")
COPY = "https://github.com/someone/mini-gpt"


def read_first_cells(root: Path) -> tuple[str, str]:
    cells = nbformat.read(root / LINKS.NOTEBOOK, as_version=4).cells
    return cells[0].source, next(cell.source for cell in cells if cell.cell_type == "code")


def test_the_files_have_the_links_of_the_constant() -> None:
    text, code = read_first_cells(ROOT)
    citation = (ROOT / "CITATION.cff").read_text()
    assert LINKS.link_first_cell(text, REPOSITORY) == text
    assert LINKS.link_installation(code, REPOSITORY) == code
    assert LINKS.link_citation(citation, REPOSITORY) == citation
    assert ("colab" in text) == ("repository-code" in citation) == bool(REPOSITORY)


def test_a_new_address_is_written_everywhere_and_taken_out_again(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for name in (LINKS.NOTEBOOK, "CITATION.cff"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    before = read_first_cells(tmp_path), (tmp_path / "CITATION.cff").read_text()
    for _ in range(2):
        LINKS.write_links(tmp_path, COPY)
    text, code = read_first_cells(tmp_path)
    assert text.count("colab.research.google.com/github/someone/mini-gpt/blob/main/notebooks/mini_gpt.ipynb") == 1
    assert f'REPOSITORY = "{COPY}"' in code
    assert yaml.safe_load((tmp_path / "CITATION.cff").read_text())["repository-code"] == COPY
    LINKS.write_links(tmp_path, "")
    assert (read_first_cells(tmp_path), (tmp_path / "CITATION.cff").read_text()) == before


def test_the_citation_has_the_version_and_the_license_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == "MIT"
    assert {"message", "title", "type", "authors"} <= citation.keys()


def test_no_other_file_names_a_public_copy() -> None:
    for place in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "minigpt").rglob("*.py")):
        if not REPOSITORY:
            text = place.read_text(encoding="utf-8").replace("https://github.com/OWNER/mini-gpt", "")
            assert not re.search(r"github\.com/[^/\s]+/mini-gpt", text), place
