"""`minigpt export --to html`: what is written, what is refused, and how the page's modules are joined."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import run_command
from random_runs import make_random_run

from minigpt.errors import ConfigError, ExchangeError, FileError
from minigpt.runs.run import Run
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer
from minigpt.web.javascript_modules import join_modules
from minigpt.web.offline import STATIC, export_html

LECTURE = {"n_embd": 64, "n_head": 4, "n_layer": 4, "block_size": 32}
CHARACTERS = CharTokenizer([chr(code) for code in range(0x20, 0x20 + 65)])  # as many as in Tiny Shakespeare


@pytest.mark.parametrize("block_size", [32, 512])
@pytest.mark.parametrize(("quantize", "most"), [(None, 1_500_000), ("int8", 500_000)])
def test_a_model_of_the_lecture_s_size_is_a_small_file(
    tmp_path: Path, quantize: str | None, most: int, block_size: int
) -> None:
    run = make_random_run(tmp_path / "run", CHARACTERS, **LECTURE | {"block_size": block_size})
    result = export_html(run, tmp_path / "page.html", quantize=quantize)
    assert result.bytes == (tmp_path / "page.html").stat().st_size <= most
    assert result.comparison and (result.comparison.difference < 1e-4) == (quantize is None)


def test_a_page_without_a_server_has_no_view_that_needs_one(trained: Run, tmp_path: Path) -> None:
    export_html(trained, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert 'id="panel-chat"' in page and 'id="sampling-template"' in page
    for word in ("panel-train", "panel-compare", "train-form", "api/v1", "--series-0", "Poller"):
        assert word not in page, word


def test_the_command_writes_the_file_and_says_what_eight_bits_cost(trained: Run, tmp_path: Path) -> None:
    arguments = ["export", trained.path, "--to", "html", "--quantize", "int8"]
    done = run_command([*arguments, "--json"], tmp_path)
    answer = json.loads(done.stdout)
    assert (tmp_path / answer["path"]).is_file() and answer["path"] == "exports/trained.html"
    assert abs(answer["loss"] - answer["run_loss"]) < 0.1 and answer["quantization"] == "int8"
    again = run_command(arguments, tmp_path)
    assert again.returncode == 2 and "exists: choose another --out, or add --overwrite" in again.stderr
    replaced = run_command([*arguments, "--overwrite"], tmp_path)
    assert replaced.returncode == 0 and "in int8 the loss is" in replaced.stdout


def test_what_a_page_cannot_hold_is_refused_by_name(trained: Run, text: str, tmp_path: Path) -> None:
    pieces = SentencePieceTokenizer.train(text, 300)
    run = make_random_run(tmp_path / "run", pieces, block_size=16)
    with pytest.raises(ExchangeError, match=r"the tokenizer of .* is sentencepiece: export it with --to hf"):
        export_html(run, tmp_path / "page.html")
    with pytest.raises(ConfigError, match="the format html has no quantization 'q8_0': choose int8"):
        export_html(trained, tmp_path / "page.html", quantize="q8_0")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="is not a file"):
        export_html(trained, tmp_path / "folder", overwrite=True)
    assert not (tmp_path / "page.html").exists()


def test_the_export_needs_no_package_of_the_server(trained: Run, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["starlette"] = sys.modules["uvicorn"] = None
from minigpt.cli.main import run
sys.exit(run(["export", {str(trained.path)!r}, "--to", "html"]))
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "exports" / "trained.html").is_file()


def test_every_module_of_the_page_can_be_joined() -> None:
    for entry in ("main.js", "offline_main.js"):
        script = join_modules(STATIC / entry)
        assert "openPage" in script and "\nimport" not in script and "\nexport" not in script
    assert "ServerBackend" not in join_modules(STATIC / "offline_main.js")


def test_a_module_is_joined_once_and_after_those_that_it_imports(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text('import { a as b } from "./a.js";\nimport { c } from "./c.js";\nb(c);\n')
    (tmp_path / "a.js").write_text('import { c } from "./c.js";\nexport function a() {\n  return c;\n}\n')
    (tmp_path / "c.js").write_text("// a comment\n/** @type {number} */\nexport const c = 1;\n")
    script = join_modules(tmp_path / "main.js")
    assert script.count("const c = 1;") == 1 and "comment" not in script and "@type" not in script
    assert script.index("const c = 1;") < script.index("function a()") < script.index("b(c)")
    assert "const { a: b } = module1;" in script


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('import a from "./a.js";\n', "imports or exports in a way"),
        ("export default 5;\n", "imports or exports in a way"),
        ("const a = 1;\nexport { a };\n", "imports or exports in a way"),
        ('import { a } from "./main.js";\n', "imports itself"),
    ],
)
def test_a_module_that_cannot_be_joined_is_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "main.js").write_text(source)
    with pytest.raises(ValueError, match=message):
        join_modules(tmp_path / "main.js")
