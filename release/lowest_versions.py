"""Try the lowest versions that pyproject.toml allows, in an environment of its own: the table of `minigpt selfcheck`.

    python release/lowest_versions.py                       # install them, and run minigpt selfcheck
    python release/lowest_versions.py --tests tests/model   # and tests

uv finds the versions. On Linux, PyTorch's old versions bring CUDA, which takes several gigabytes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("docs", "llama")  # llama-cpp-python has to be compiled


def find_lowest_versions(folder: Path) -> Path:
    """Write the lowest versions of all direct requirements to a file in a folder, and return the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [f"--extra={name}" for name in project["optional-dependencies"] if name not in LEFT_OUT]
    python = f"--python-version={sys.version_info.major}.{sys.version_info.minor}"
    found = folder / "lowest.txt"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--resolution=lowest-direct", python, *extras]
    subprocess.run([*command, f"--output-file={found}", str(ROOT / "pyproject.toml")], check=True)
    return found


def main() -> None:
    """Install the lowest versions, and use the package with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="*", default=[], metavar="PATH", help="tests to run as well [none]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "environment", with_pip=True)
        python = str(folder / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, "--requirement", str(find_lowest_versions(folder))], check=True)
        subprocess.run([*pip, "--no-deps", str(ROOT)], check=True)
        subprocess.run([python, "-m", "minigpt", "selfcheck", "--device", "cpu"], check=True, cwd=folder)
        if arguments.tests:
            subprocess.run([python, "-m", "pytest", "-q", *arguments.tests], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
