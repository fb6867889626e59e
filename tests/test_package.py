"""The package as it is installed: light to import, whole without the extras, honest about its layers."""

import ast
import importlib.metadata
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

from cli_process import run_code

import minigpt

PACKAGE = Path(minigpt.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "minigpt."))


def test_a_bare_install_imports_without_the_extras() -> None:
    requirements = importlib.metadata.requires("mini-gpt") or []
    wanted = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in requirements if "extra ==" in line}
    modules = importlib.metadata.packages_distributions().items()
    extras = {module for module, owners in modules if wanted & {owner.replace("-", "_") for owner in owners}}
    assert {"transformers", "pytest", "xdist"} <= extras
    run_code(f"""
import importlib, sys, warnings
warnings.filterwarnings("error", module=r"minigpt(\\.|$)")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"{{name}} is an extra")
sys.meta_path.insert(0, Absent())
for name in [*sys.modules]:
    if name.split(".")[0] in {extras | {"minigpt"}!r}:
        del sys.modules[name]
for name in {MODULES!r}:
    if name == "minigpt.__main__":
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        if not name.startswith("minigpt.web."):  # the server itself is an extra
            raise
""")


def test_importing_minigpt_is_light() -> None:
    script = "import sys, minigpt; print({'torch', 'numpy', 'rich', 'click'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


LAYERS = (  # each may import from those before it; `kernels` stands beside, and only `acceleration` imports it
    ("errors", "version"),
    ("presets", "config_fields"),
    ("config_toml",),
    ("config",),
    ("system",),
    ("tokenizers", "model"),
    ("acceleration",),
    ("data", "generation"),
    ("runs",),
    ("distributed",),
    ("training",),
    ("finetuning",),
    ("exchange",),
    ("studies",),
    ("learn",),
    ("web",),
    ("cli",),
)
KERNELS_IMPORT = {
    "errors",
    "version",
    "config_fields",
    "config_toml",
    "presets",
    "config",
    "system",
    "model",
    "kernels",
}
UNLAYERED = {"__init__", "__main__", "entry_points"}  # the entry points, which import what they start


def imported_modules(file: Path) -> set[str]:
    """The modules of the package that a file imports anywhere in it, late imports included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in whole}
    return {name for name in names if name == "minigpt" or name.startswith("minigpt.")}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def source_files() -> dict[str, Path]:
    """Each module's name and its file."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def test_imports_run_one_way() -> None:
    rank = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    upward = []
    for module, file in source_files().items():
        part = part_of(module)
        if part in UNLAYERED:
            continue
        for other in sorted(imported_modules(file)):
            target = part_of(other)
            if target == part:
                continue
            if part == "kernels":
                allowed = target in KERNELS_IMPORT
            elif target == "kernels":
                allowed = part == "acceleration"
            else:
                allowed = target in rank and rank[target] < rank[part]
            if not allowed:
                upward.append(f"{module} imports {other}")
    assert upward == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {module: imported_modules(file) - {module, "minigpt"} for module, file in source_files().items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a cycle of imports: {' -> '.join((*path[path.index(module) :], module))}"
        if module in done or module not in graph:
            return
        for other in sorted(graph[module]):
            visit(other, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


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


def test_nothing_is_pickled_but_tensors_for_other_programs() -> None:
    pickles = PACKAGE / "exchange" / "pickles.py"
    assert len(re.findall(r"torch\.load\(", pickles.read_text())) == pickles.read_text().count("weights_only=True, ")
    for file in {*PACKAGE.rglob("*.py")} - {pickles}:
        code = re.sub(r"```python.*?```", "", file.read_text(), flags=re.S)  # of a model card
        assert not re.search(r"import pickle|(?<!safetensors\.)torch\.(save|load)\(", code), file
