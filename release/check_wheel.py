"""Build the package, and use the wheel in a new environment as a user would, without the checkout.

    python release/check_wheel.py             # the wheel without extras: commands, and which extra a refusal names
    python release/check_wheel.py --extras    # and then each extra: the commands that it brings

The sdist and the wheel go to dist/. The environment is temporary.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
SMALL = "--n-embd 16 --n-head 2 --n-layer 1 --block-size 16 --max-iters 20 --eval-interval 10 --eval-windows 4"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8") * 3

WORKS_BARE = (
    "--help",
    f"train --data text.txt --out runs/small --device cpu {SMALL}",
    "sample runs/small --max-new-tokens 20",
    "info runs/small",
    "export runs/small --to hf",
    "export runs/small --to html",
)
# Of each extra, a command that needs it. Without the extra, the command is refused, and the refusal names the extra.
NEEDS_EXTRA = {
    "data": f"train --data text.txt.zst --out runs/zst --device cpu {SMALL}",
    "exchange": "import hf nobody/nothing",  # with the extra, the command gets as far as the missing network
    "gguf": "export runs/small --to gguf",
    "onnx": "export runs/small --to onnx --quantize int8",
    "tensorboard": f"train --data text.txt --log-to tensorboard --out runs/logged --device cpu {SMALL}",
    "tokenizers": "tokenizer train --data text.txt --kind sentencepiece --vocab-size 400",
    "web": "serve runs/missing",  # with the extra, the command gets as far as the missing run
}
WORKS_OFFLINE = ("data", "gguf", "onnx", "tensorboard", "tokenizers")
ZST = "28b52ffd"  # how a file of zstandard begins


def build() -> Path:
    """Build the sdist and, from it, the wheel. Return the wheel's path."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", DIST, ROOT], check=True, stdout=subprocess.DEVNULL)
    for file in sorted(DIST.iterdir()):
        print(f"{file.name}: {file.stat().st_size:,} bytes")
    (wheel,) = DIST.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Check that the wheel has the package's files, the license and the mark of its types, and nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    git = subprocess.run(["git", "ls-files", "minigpt"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert {"minigpt/py.typed", "minigpt/web/static/index.html"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name for name in names if ".dist-info/" not in name} == set(git.stdout.split())


class Installation:
    """An environment with the wheel in it, and an empty folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        """Create the environment in a folder, and install the wheel without extras."""
        self.wheel, self.work = wheel, folder / "work"
        self.work.mkdir()
        venv.create(folder / "environment", with_pip=True)
        self.programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
        self.environment.pop("PYTHONPATH", None)
        self.install()
        (self.work / "text.txt").write_text(TEXT, encoding="utf-8")
        (self.work / "text.txt.zst").write_bytes(bytes.fromhex(ZST) + bytes(64))

    def install(self, extra: str = "") -> None:
        """Install the wheel, with an extra if one is named."""
        wanted = f"{self.wheel}[{extra}]" if extra else str(self.wheel)
        # Compiling takes a minute.
        pip = [str(self.programs / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *constraints, wanted], check=True, env=self.environment, cwd=self.work)

    def run(self, arguments: str, status: int = 0) -> subprocess.CompletedProcess:
        """Run `minigpt` with arguments, and check its exit status."""
        command = [str(self.programs / "minigpt"), *arguments.split()]
        done = subprocess.run(command, cwd=self.work, env=self.environment, capture_output=True, encoding="utf-8")
        assert done.returncode == status, f"minigpt {arguments}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def run_python(self, code: str) -> str:
        """Run Python code, and return what it prints."""
        command = [str(self.programs / "python"), "-c", code]
        return subprocess.run(command, cwd=self.work, env=self.environment, stdout=-1, text=True, check=True).stdout


def check_bare(installation: Installation) -> None:
    """Check the commands that need no extra, and the refusals of those that need one."""
    version = installation.run_python("import importlib.metadata as m; print(m.version('mini-gpt'), end='')")
    assert installation.run("--version").stdout == f"minigpt, version {version}\n"
    assert version in installation.wheel.name
    for arguments in WORKS_BARE:
        installation.run(arguments)
    for extra, arguments in NEEDS_EXTRA.items():
        refusal = installation.run(arguments, status=2).stderr
        assert f"pip install 'mini-gpt[{extra}]'" in refusal, refusal
    print(
        f"{installation.wheel.name} without extras: {len(WORKS_BARE)} commands work, {len(NEEDS_EXTRA)} name an extra"
    )


def check_extras(installation: Installation) -> None:
    """Install one extra after another, and check that its command is no longer refused for the lack of it."""
    for extra, arguments in NEEDS_EXTRA.items():
        installation.install(extra)
        if extra == "data":
            code = (
                "import zstandard; open('text.txt.zst', 'wb').write(zstandard.compress(open('text.txt', 'rb').read()))"
            )
            installation.run_python(code)
        done = installation.run(arguments, status=0 if extra in WORKS_OFFLINE else 2)
        assert "mini-gpt[" not in done.stderr, done.stderr
        print(f"extra {extra}: minigpt {' '.join(arguments.split()[:4])} … status {done.returncode}")
    installation.install("notebook")
    installation.run_python("import ipykernel, nbclient")
    print("extra notebook: its packages can be imported")


def main() -> None:
    """Build, check the wheel, and with --extras the extras."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", action="store_true", help="install each extra, and use it")
    arguments = parser.parse_args()
    wheel = build()
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder), wheel)
        check_bare(installation)
        if arguments.extras:
            check_extras(installation)


if __name__ == "__main__":
    main()
