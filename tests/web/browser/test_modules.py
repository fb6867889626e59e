"""The page's modules that touch nothing of the page: the tree of branches, and visible text."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import Site
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture(scope="module")
def evaluate(chromium: Browser, small_site: Site) -> Iterator[Callable[[str, str], Any]]:
    """Return a function that calls a JavaScript function with the exports of a module."""
    page = chromium.new_page()
    page.goto(small_site.address)

    def call(module: str, function: str) -> Any:
        return page.evaluate(f"async () => ({function})(await import('/static/{module}'))")

    yield call
    page.close()


@pytest.mark.parametrize(
    ("raw", "in_text", "label"),
    [
        ("e", "e", "e"),
        (" the", " the", "␣the"),
        ("\n", "↵\n", "↵"),
        ("\r\n", "⟨U+000D⟩↵\n", "⟨U+000D⟩↵"),
        ("\t", "⇥\t", "⇥"),
        ("", "", "(empty)"),
        ("\x00\x7f\x9f", "⟨U+0000⟩⟨U+007F⟩⟨U+009F⟩", "⟨U+0000⟩⟨U+007F⟩⟨U+009F⟩"),
        ("\u202e\u2067\u200f", "⟨U+202E⟩⟨U+2067⟩⟨U+200F⟩", "⟨U+202E⟩⟨U+2067⟩⟨U+200F⟩"),
        ("\u2028", "⟨U+2028⟩", "⟨U+2028⟩"),
        ("\u00a0\u3000", "\u00a0\u3000", "⟨U+00A0⟩⟨U+3000⟩"),
        ("\u0301", "\u0301", "◌\u0301"),
        ("\U000e0041", "⟨U+E0041⟩", "⟨U+E0041⟩"),
        ("שלום ✓ 😀 \ufffd", "שלום ✓ 😀 \ufffd", "שלום␣✓␣😀␣\ufffd"),
    ],
)
def test_invisible_characters_are_shown(evaluate, raw: str, in_text: str, label: str) -> None:
    code = "".join(f"\\u{{{ord(character):x}}}" for character in raw)
    shown = evaluate("visible_text.js", f"text => [text.showInText('{code}'), text.showAsLabel('{code}')]")
    assert shown == [in_text, label]


TREE = """({BranchTree}) => {
    const make = (text) => [...text].map((text) => ({id: text.codePointAt(0), text}));
    const token = (text) => make(text)[0];
    const tree = new BranchTree(make('ab'));
    const read = (id) => tree.path(id).map((token) => token.text).join('');
    const choose = (id, place, text) => tree.choose(id, place, token(text));
    tree.append(0, make('cdef'));
    %s
}"""


def test_a_token_at_the_end_makes_the_branch_longer(evaluate) -> None:
    result = evaluate("branch_tree.js", TREE % "return [choose(0, 6, 'x'), read(0), tree.branches.length];")
    assert result == [{"id": 0, "isNew": True}, "abcdefx", 1]


def test_the_same_token_makes_no_branch(evaluate) -> None:
    assert evaluate("branch_tree.js", TREE % "return [choose(0, 3, 'd'), tree.branches.length];") == [
        {"id": 0, "isNew": False},
        1,
    ]


def test_another_token_begins_a_branch_which_shares_the_tokens_before_it(evaluate) -> None:
    steps = (
        "const made = choose(0, 3, 'x'); tree.append(1, make('yz')); return [made, read(0), read(1), tree.length(1)];"
    )
    assert evaluate("branch_tree.js", TREE % steps) == [{"id": 1, "isNew": True}, "abcdef", "abcxyz", 6]


def test_a_token_that_another_branch_has_there_leads_to_it(evaluate) -> None:
    steps = "choose(0, 3, 'x'); return [choose(0, 3, 'x'), choose(1, 3, 'd'), tree.branches.length];"
    assert evaluate("branch_tree.js", TREE % steps) == [{"id": 1, "isNew": False}, {"id": 0, "isNew": False}, 2]


def test_a_token_before_a_branch_belongs_to_its_parent(evaluate) -> None:
    steps = """
        choose(0, 4, 'x');
        const early = choose(1, 3, 'y'), sibling = choose(1, 4, 'z');
        return [tree.branches[early.id].parent, read(early.id), tree.branches[sibling.id].parent, read(sibling.id)];
    """
    assert evaluate("branch_tree.js", TREE % steps) == [0, "abcy", 0, "abcdz"]


def test_the_list_has_each_branch_before_its_children_in_the_order_of_their_places(evaluate) -> None:
    steps = """
        choose(0, 4, 'x'); tree.append(1, make('yz'));
        choose(1, 6, 'w'); choose(1, 5, 'v'); choose(0, 3, 'u');
        return tree.list().map(({branch, level}) => [read(branch.id), level]);
    """
    assert evaluate("branch_tree.js", TREE % steps) == [
        ["abcdef", 1],
        ["abcu", 2],
        ["abcdxyz", 2],
        ["abcdxv", 3],
        ["abcdxyw", 3],
    ]
