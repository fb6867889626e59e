"""Give the package's metadata the links to the public copy, if there is one."""

import runpy
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class PublicLinks(MetadataHookInterface):
    """Hatchling calls `update` when it builds."""

    def update(self, metadata: dict) -> None:
        """Add the links."""
        root = Path(self.root)
        repository = runpy.run_path(str(root / "minigpt" / "version.py"))["REPOSITORY"]
        metadata["urls"] = runpy.run_path(str(root / "release" / "links.py"))["list_urls"](repository)
