"""The notebook as a page of the site: its text, its code, and what the code printed and drew."""

import base64
from pathlib import Path

import nbformat


def write_notebook_page(notebook: Path, images: Path) -> str:
    """Return the notebook in Markdown, and write its pictures.

    Args:
        notebook: the notebook, with outputs.
        images: the folder for its pictures, `images/notebook` beside the page.
    """
    images.mkdir()
    parts = []
    for number, cell in enumerate(nbformat.read(notebook, as_version=4).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{number}-{place}.png"
                (images / name).write_bytes(base64.b64decode(data["image/png"]))
                parts.append(f"![What the code above draws](images/notebook/{name})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"`````text\n{text.rstrip()}\n`````")
    return "\n\n".join(parts) + "\n"
