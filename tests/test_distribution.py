"""What is built and published: the wheel's check knows every extra, and links appear only with a public copy."""

import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from minigpt.version import REPOSITORY, __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"docs", "test", "llama"}  # llama is a peer of a benchmark, and has to be compiled


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "release" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_check_of_the_wheel_uses_every_extra() -> None:
    used = {*load_script("check_wheel").NEEDS_EXTRA, "notebook"}
    assert used == {*PROJECT["optional-dependencies"]} - FOR_DEVELOPERS


def test_every_extra_of_users_is_tested_and_has_the_same_range() -> None:
    extras = PROJECT["optional-dependencies"]
    tested = {line.split(";")[0] for line in extras["test"]}
    for name, lines in extras.items():
        if name not in FOR_DEVELOPERS | {"exchange"}:  # transformers brings huggingface_hub
            assert {line.split(";")[0] for line in lines} <= tested, name


def test_the_versions_that_are_tested_are_in_the_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    wanted = [
        *PROJECT["dependencies"],
        *(line for lines in PROJECT["optional-dependencies"].values() for line in lines),
    ]
    for requirement in map(Requirement, wanted):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(__version__)}, \d+ \w+ 20\d\d", headings[1])


def test_the_metadata_has_links_if_and_only_if_there_is_a_public_copy() -> None:
    list_urls = load_script("links").list_urls
    assert list_urls("") == {}
    assert list_urls("https://github.com/o/r")["Issues"] == "https://github.com/o/r/issues"
    shown = importlib.metadata.metadata("mini-gpt").get_all("Project-URL") or []
    assert len(shown) == len(list_urls(REPOSITORY))
