"""Examples in files: both formats are read, and a line that holds none is refused by its place."""

import gzip
import json
from pathlib import Path

import pytest
from conversations import CONVERSATION

from minigpt.errors import DataError, FileError
from minigpt.finetuning.examples import Example, has_examples, read_examples


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_examples_in_alpacas_format_and_as_messages_are_read(tmp_path: Path) -> None:
    messages = [{"role": turn.role, "content": turn.text} for turn in CONVERSATION.turns]
    path = write_lines(
        tmp_path / "a.jsonl",
        {"instruction": "Reverse", "input": "ab", "output": "ba"},
        {"instruction": "Say a", "output": "a"},
        "",
        {"messages": messages},
    )
    assert read_examples(path) == [
        Example.from_pair("Reverse\nab", "ba"),
        Example.from_pair("Say a", "a"),
        CONVERSATION,
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", "line 2, is not JSON"),
        ({"text": "x"}, r"line 2, has none of messages, .* \(it has 'text'\)"),
        ([1], "line 2, has none of messages"),
        ({"instruction": "a", "output": 3}, "line 2: instruction, input and output must be text"),
        ({"instruction": "a", "output": " "}, "line 2, has an empty answer"),
        ({"instruction": "", "output": "b"}, "line 2, has an empty instruction"),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            "line 2: the roles are user, not user and assistant in turn",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]},
            "roles are assistant, user",
        ),
        ({"messages": []}, "the roles are none"),
        ({"messages": "hi"}, "the roles are none"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "line 2: a message needs a role"),
        ({"messages": [{"role": "user"}]}, "line 2: a message needs a role"),
    ],
)
def test_a_line_that_is_not_an_example_is_refused_by_its_place(line: object, error: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"instruction": "a", "output": "b"}, line)
    with pytest.raises(DataError, match=error):
        read_examples(path)
    with pytest.raises(FileError, match="has no examples"):
        read_examples(write_lines(tmp_path / "b.jsonl", ""))


ROW = json.dumps({"instruction": "a", "output": "b"})
TEXTS = {
    "plain.txt": "To be",
    "a.md": "{curly}",
    "notes": "[1] See below.",
    "code.py": "{}\n",
    "rows.log": '{"a": 1}\n',
}


@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL", "a.ndjson", "a.json", "a.Json.gz", "a", "a.data"])
def test_examples_are_recognized_by_their_content(name: str, tmp_path: Path) -> None:
    for content in (f"{ROW}\n{ROW}\n", f"[{ROW}, {ROW}]", f"\n[\n{ROW}]"):
        written = content.encode()
        (tmp_path / name).write_bytes(gzip.compress(written) if name.endswith(".gz") else written)
        assert has_examples(tmp_path / name)


def test_texts_and_folders_are_not_taken_for_examples(tmp_path: Path) -> None:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
        assert not has_examples(tmp_path / name)
    (tmp_path / "data.json").mkdir()
    assert not has_examples(tmp_path / "data.json")
    assert not has_examples(tmp_path / "missing.txt")


def test_examples_in_a_file_that_is_named_like_a_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{ROW}\n")
    with pytest.raises(DataError, match=r"named like a text and has examples: rename it to end in \.jsonl"):
        has_examples(tmp_path / "a.txt")
