// The likeliest next tokens as bars: one button for each token.

import { createElement, createSvg } from "./dom.js";
import { formatPercent } from "./format.js";
import { RovingFocus } from "./roving_focus.js";
import { showAsLabel } from "./visible_text.js";

/** @typedef {import("./backend.js").Candidate} Candidate */

/** A list of candidates. The arrow keys move between them. */
export class BarChart {
  /** @type {HTMLOListElement} */
  element;
  /** @type {HTMLButtonElement[]} */
  #buttons = [];
  /** @type {Candidate[]} */
  #candidates = [];
  #onChoose;
  #focus;

  /**
   * @param {string} label The list's name for a screen reader.
   * @param {(candidate: Candidate, rank: number) => void} onChoose
   */
  constructor(label, onChoose) {
    this.#onChoose = onChoose;
    this.element = createElement("ol", { class: "bars", "aria-label": label });
    this.#focus = new RovingFocus(this.element);
  }

  /**
   * Show candidates. The rows stay, so that a focused button keeps the focus and bars can grow and shrink.
   * @param {Candidate[]} candidates The likeliest first.
   * @param {number | null} chosenId The id of the token that stands in the text.
   */
  show(candidates, chosenId) {
    this.#candidates = candidates;
    while (this.#buttons.length < candidates.length) this.#addRow(this.#buttons.length);
    const largest = Math.max(...candidates.flatMap((each) => [each.probability, each.filtered_probability]));
    this.#buttons.forEach((button, row) => {
      const candidate = candidates[row];
      /** @type {HTMLElement} */ (button.parentElement).hidden = !candidate;
      if (candidate) showRow(button, candidate, largest, candidate.id === chosenId);
    });
    this.#focus.update();
  }

  /** @param {number} row */
  #addRow(row) {
    const button = createElement(
      "button",
      { type: "button", tabindex: -1, onclick: () => this.#onChoose(this.#candidates[row], row + 1) },
      createElement("bdi", { class: "bar-label" }),
      createSvg(
        "svg",
        { class: "bar", viewBox: "0 0 100 16", preserveAspectRatio: "none", "aria-hidden": "true" },
        createSvg("rect", { class: "bar-before", height: 16, width: 0 }),
        createSvg("rect", { class: "bar-after", y: 4, height: 8, width: 0 }),
      ),
      createElement("span", { class: "bar-numbers" }),
    );
    this.#buttons.push(button);
    this.element.append(createElement("li", {}, button));
  }
}

/**
 * @param {HTMLButtonElement} button
 * @param {Candidate} candidate
 * @param {number} largest The probability of a full bar.
 * @param {boolean} isChosen
 */
function showRow(button, candidate, largest, isChosen) {
  const { text, probability, filtered_probability: filtered } = candidate;
  const [label, , numbers] = button.children;
  const [before, after] = button.querySelectorAll("rect");
  label.textContent = showAsLabel(text);
  before.setAttribute("width", String((100 * probability) / largest));
  after.setAttribute("width", String((100 * filtered) / largest));
  numbers.textContent = `${formatPercent(probability)} → ${formatPercent(filtered)}`;
  button.classList.toggle("excluded", filtered === 0);
  button.setAttribute("aria-pressed", String(isChosen));
}
