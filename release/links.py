"""The links to the public copy, if there is one: they come from REPOSITORY in minigpt/version.py."""


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
