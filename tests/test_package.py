"""The package as it is installed: light to import, whole without the extras, honest about its layers."""

import ast
import importlib.metadata
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minigpt

PACKAGE = Path(minigpt.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "minigpt."))


def test_a_bare_install_imports_without_the_extras() -> None:
    requirements = importlib.metadata.requires("mini-gpt") or []
    wanted = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in requirements if "extra ==" in line}
    modules = importlib.metadata.packages_distributions().items()
    extras = {module for module, owners in modules if wanted & {owner.replace("-", "_") for owner in owners}}
    assert {"transformers", "pytest", "xdist"} <= extras
    script = f"""
import importlib, sys, warnings
warnings.filterwarnings("error", module=r"minigpt(\\.|$)")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"{{name}} is an extra")
sys.meta_path.insert(0, Absent())
for name in {MODULES!r}:
    if name != "minigpt.__main__":
        importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_importing_minigpt_is_light() -> None:
    script = "import sys, minigpt; print({'torch', 'numpy', 'rich', 'click'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


FORBIDDEN = {
    "settings": {"config", "text", "model", "sampling", "training", "run", "folder", "device", "studies", "cli"},
    "presets": {"config", "text", "model", "sampling", "training", "run", "folder", "device", "studies", "cli"},
    "config": {"text", "model", "sampling", "training", "run", "folder", "device", "studies", "cli"},
    "text": {"model", "sampling", "training", "run", "folder", "device", "studies", "cli"},
    "model": {"text", "sampling", "training", "run", "folder", "studies", "cli"},
    "sampling": {"text", "training", "run", "folder", "studies", "cli"},
    "folder": {"training", "sampling", "run", "studies", "cli"},
    "run": {"training", "studies", "cli"},
    "training": {"studies", "cli"},
    "studies": {"cli"},
}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_run_one_way(part: str) -> None:
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else sorted((PACKAGE / part).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            imported = {name.split(".")[1] for name in names if name.startswith("minigpt.")}
            assert not imported & FORBIDDEN[part], f"{file.name} imports {imported & FORBIDDEN[part]}"


def test_make_installs_again_only_when_what_is_installed_changes(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((PACKAGE.parent / name).read_bytes())

    def plan(target: str) -> str:
        return subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "-m venv" in plan("train")
    (tmp_path / ".venv").mkdir()
    for stamp in (".installed", ".installed-test"):
        (tmp_path / ".venv" / stamp).touch()
    assert "pip install" not in plan("train") + plan("test")
    for name in ("pyproject.toml", "constraints.txt"):
        later = (tmp_path / ".venv" / ".installed-test").stat().st_mtime + 5
        os.utime(tmp_path / name, (later, later))
        assert "pip install" in plan("train")
        os.utime(tmp_path / name, (0, 0))


def test_nothing_is_pickled() -> None:
    for file in PACKAGE.rglob("*.py"):
        assert not re.search(r"import pickle|(?<!safetensors\.)torch\.(save|load)\(", file.read_text()), file
