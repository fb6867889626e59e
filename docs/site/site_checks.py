"""What must hold for the built site: the API reference is complete, and no page loads anything from another host."""

import posixpath
import re
import sys
from pathlib import Path

from api_pages import list_places, list_public_names

# What a browser loads by itself, unlike a link that a reader follows.
_LOADED = (
    re.compile(r"<(?:script|img|iframe|source|audio|video|embed)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(r"(?:url\([\"']?|@import\s+[\"'])((?:https?:)?//[^\"')]+)"),
)


def check_reference(site: Path) -> None:
    """Exit with an error unless the API reference has every public name and nothing else."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", posixpath.join)
    kinds = ("py:class", "py:exception", "py:function", "py:data")
    found = {name for kind in kinds for name in inventory.get(kind, {})}
    expected = list_public_names()
    missing, private = expected - found, found - expected - list_places()
    if missing or private:
        sys.exit(f"the API reference lacks {sorted(missing)}, and must not have {sorted(private)}")
    print(f"API reference: {len(expected)} names")


def find_requests_to_other_hosts(site: Path) -> list[str]:
    """Return what the pages and styles would load from other hosts: "PAGE: ADDRESS" each."""
    files = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(site)}: {address}" for kind in _LOADED for address in kind.findall(text)]
    return found
