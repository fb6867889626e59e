// The branches of a text as a tree widget, after the pattern of the ARIA Authoring Practices.

import { createElement } from "./dom.js";
import { formatCount } from "./format.js";
import { quote, showAsLabel } from "./visible_text.js";

/**
 * @typedef {import("./branch_tree.js").BranchTree} BranchTree
 * @typedef {import("./branch_tree.js").Branch} Branch
 */

const LONGEST_LABEL = 24; // characters of the prompt in the first branch's label

export class BranchList {
  /** @type {HTMLElement} */
  element;
  /** @type {BranchTree | null} */
  #tree = null;
  #shown = 0;
  /** @type {Map<number, HTMLElement>} */
  #items = new Map();
  #onShow;

  /** @param {(id: number) => void} onShow A branch was chosen. */
  constructor(onShow) {
    this.#onShow = onShow;
    this.element = createElement("div", {
      class: "branches",
      role: "tree",
      "aria-label": "Branches of the text",
      onkeydown: (event) => this.#handleKey(/** @type {KeyboardEvent} */ (event)),
    });
  }

  /**
   * Draw a tree.
   * @param {BranchTree} tree
   * @param {number} shown The id of the branch whose text is shown.
   */
  show(tree, shown) {
    const hadFocus = this.element.contains(document.activeElement);
    this.#tree = tree;
    this.#shown = shown;
    this.#items.clear();
    for (const { branch, level } of tree.list()) this.#items.set(branch.id, this.#createItem(branch, level));
    this.element.replaceChildren(...this.#items.values());
    if (hadFocus) this.#items.get(shown)?.focus();
  }

  /**
   * Update what the list says about a branch that has grown.
   * @param {number} id
   */
  updateLength(id) {
    const item = this.#items.get(id);
    if (item && this.#tree) item.lastChild?.replaceWith(describeLength(this.#tree, id));
  }

  /**
   * @param {Branch} branch
   * @param {number} level
   */
  #createItem(branch, level) {
    const tree = /** @type {BranchTree} */ (this.#tree);
    const siblings = branch.parent === null ? [branch] : tree.children(branch.parent);
    const isShown = branch.id === this.#shown;
    const item = createElement(
      "div",
      {
        role: "treeitem",
        "aria-level": level,
        "aria-posinset": siblings.indexOf(branch) + 1,
        "aria-setsize": siblings.length,
        "aria-selected": String(isShown),
        "aria-expanded": tree.children(branch.id).length > 0 ? "true" : null,
        tabindex: isShown ? 0 : -1,
        onclick: () => this.#choose(branch.id),
      },
      createElement("bdi", { class: "branch-name" }, describeBranch(tree, branch)),
      describeLength(tree, branch.id),
    );
    item.style.setProperty("--level", String(level - 1));
    return item;
  }

  /** @param {number} id */
  #choose(id) {
    this.#onShow(id);
    this.#items.get(id)?.focus();
  }

  /** @param {KeyboardEvent} event */
  #handleKey(event) {
    if (!this.#tree) return;
    const ids = [...this.#items.keys()];
    const place = ids.indexOf(this.#shown);
    const next = {
      ArrowUp: ids[place - 1],
      ArrowDown: ids[place + 1],
      ArrowLeft: this.#tree.branches[this.#shown].parent,
      ArrowRight: this.#tree.children(this.#shown)[0]?.id,
      Home: ids[0],
      End: ids[ids.length - 1],
    }[event.key];
    if (next === undefined || next === null) return;
    event.preventDefault();
    this.#choose(next);
  }
}

/**
 * @param {BranchTree} tree
 * @param {Branch} branch
 */
function describeBranch(tree, branch) {
  if (branch.parent === null) {
    const prompt = branch.tokens
      .filter((token) => token.probability === undefined)
      .map((token) => token.text)
      .join("");
    const characters = Array.from(showAsLabel(prompt));
    const isLong = characters.length > LONGEST_LABEL;
    return `Start “${characters.slice(0, LONGEST_LABEL).join("")}${isLong ? "…" : ""}”`;
  }
  const replaced = tree.path(branch.parent)[branch.start];
  return `${quote(branch.tokens[0].text)} for ${quote(replaced.text)} at token ${branch.start + 1}`;
}

/**
 * @param {BranchTree} tree
 * @param {number} id
 */
function describeLength(tree, id) {
  return createElement("span", { class: "branch-length" }, formatCount(tree.length(id), "token"));
}
