"""Build the site from docs/: `python docs/site/build.py`, or `make docs`. A warning or a broken link fails the build.

The pages are copied to build/site/source. There a link to a page stays a link to it, and a link to a source file leads
to a page with the file. Then come the notebook, the API reference, and a small model, which the build trains. The site
is in build/site/html; build/site/html/index.html opens in any browser, without a server.
"""

import os
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "docs" / "site"), str(ROOT)]

from api_pages import write_api_pages  # noqa: E402
from notebook_page import write_notebook_page  # noqa: E402
from site_checks import check_reference, find_requests_to_other_hosts  # noqa: E402

BUILD = ROOT / "build" / "site"
SOURCE, OUT = BUILD / "source", BUILD / "html"
NOTEBOOK = "notebooks/mini_gpt.ipynb"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".js": "javascript", ".css": "css", ".cff": "yaml"}
CONTENTS = {  # the site's menu; Sphinx reports a page that is in none of these lists
    "Learn": ["try", "source/minigpt/model/lecture.py", "notebook", "ladder", "learn", "teaching"],
    "Train and share": [
        *("training", "sampling", "look", "serving", "playground", "tokenizers", "data", "finetuning"),
        *("instructions", "quantization", "export", "coming_from"),
    ],
    "Understand the program": [
        *("architecture", "performance", "scaling", "results", "record", "platforms", "api/index", "web_api"),
        *("contributing", "releasing", "security", "log", "changelog"),
    ],
}
MODEL = "model.html"
MAX_MODEL_BYTES = 500_000
MARKS = {
    "<!-- offline model -->": f'<iframe class="offline-model" src="{MODEL}" title="The offline model"></iframe>',
    "<!-- API reference -->": "; the [API reference](api/index.rst)",
    "<!-- contents -->": "\n".join(
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in CONTENTS.items()
    ),
}


def copy_pages() -> None:
    """Copy the pages and pictures of docs/ and the pages of the root, with links that work in the site."""
    shutil.copytree(ROOT / "docs" / "images", SOURCE / "images")
    texts = {path.name: path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md")}
    texts |= {page: Path(name) for name, page in PAGES.items() if name != "README.md"}
    for page, original in texts.items():
        text = (ROOT / original).read_text(encoding="utf-8")
        for mark, content in MARKS.items():
            text = text.replace(mark, content)
        (SOURCE / page).write_text(adapt_links(text, original.parent.as_posix()), encoding="utf-8")


def adapt_links(text: str, folder: str) -> str:
    """Return a page with links that work in the site.

    Args:
        text: the page, in Markdown.
        folder: the page's folder in the repository, such as "docs".
    """

    def adapt(match: re.Match[str]) -> str:
        label, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, target))
        if target.startswith("https://") or not target or not (ROOT / path).exists():
            return match[0]  # Sphinx reports a link that leads nowhere
        if path in PAGES:
            return f"[{label}]({PAGES[path]}{anchor})"
        if path == NOTEBOOK:
            return f"[{label}](notebook.md)"
        if re.fullmatch(r"docs/([\w-]+\.md|images/.*)", path):
            return f"[{label}]({path.removeprefix('docs/')}{anchor})"
        return label if (ROOT / path).is_dir() else f"[{label}]({write_source_page(path)})"

    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)", adapt, text)


def write_source_page(path: str) -> str:
    """Write a page with a source file, and return its name."""
    page = SOURCE / "source" / f"{path}.md"
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        code, language = (ROOT / path).read_text(encoding="utf-8"), LANGUAGES.get(Path(path).suffix, "text")
        orphan = "" if f"source/{path}" in CONTENTS["Learn"] else "---\norphan: true\n---\n\n"
        page.write_text(f"{orphan}# {path}\n\n`````{language}\n{code}`````\n", encoding="utf-8")
    return page.relative_to(SOURCE).as_posix()


def make_offline_model() -> None:
    """Train and export the small model by the commands of the page try.md."""
    page = (ROOT / "docs" / "try.md").read_text(encoding="utf-8")
    commands = re.findall(r"^minigpt (.*)$", page.split("```sh\n")[1].split("```")[0], re.M)
    work = BUILD / "model"
    work.mkdir()
    if (ROOT / "input.txt").exists():
        shutil.copy(ROOT / "input.txt", work)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in commands:
        words = shlex.split(command, comments=True)
        subprocess.run([sys.executable, "-m", "minigpt", *words], cwd=work, env=environment, check=True)
    size = (work / MODEL).stat().st_size
    if size > MAX_MODEL_BYTES:
        sys.exit(f"the offline model has {size:,} bytes, more than {MAX_MODEL_BYTES:,}: make it smaller in docs/try.md")
    shutil.copy(work / MODEL, OUT / MODEL)


def main() -> None:
    """Build the site."""
    shutil.rmtree(BUILD, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    copy_pages()
    notebook = ROOT / NOTEBOOK
    (SOURCE / "notebook.md").write_text(
        adapt_links(write_notebook_page(notebook, SOURCE / "images" / "notebook"), "notebooks"), encoding="utf-8"
    )
    write_api_pages(SOURCE / "api")
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-n", "-q", "-j", "auto"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*sphinx, "-c", ROOT / "docs" / "site", SOURCE, OUT], env=environment, check=True)
    check_reference(OUT)
    make_offline_model()
    if requests := find_requests_to_other_hosts(OUT):
        sys.exit("the site would load from other hosts: " + "; ".join(requests))
    print(f"the site is in {OUT}")


if __name__ == "__main__":
    main()
