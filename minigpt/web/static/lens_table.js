// The logit lens as a table: a row for each layer, a column for each position, in each cell the likeliest next token.

import { createElement } from "./dom.js";
import { formatPercent } from "./format.js";
import { quote, showAsLabel } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Lens} Lens
 * @typedef {import("./backend.js").LensPosition} LensPosition
 */

export const LENS_COLUMNS = 64; // more columns make the table slow and hard to read

export class LensTable {
  /** @type {HTMLTableElement} */
  element = createElement("table", { class: "lens" });
  /** @type {HTMLElement} */
  details = createElement("div", { class: "lens-details" });
  /** @type {Lens} */
  #lens = { tokens: [], layers: [] };
  /** @type {number | null} */
  #column = null;

  /**
   * Show the last LENS_COLUMNS positions.
   * @param {Lens} lens
   */
  show(lens) {
    const first = Math.max(0, lens.tokens.length - LENS_COLUMNS);
    this.#lens = {
      tokens: lens.tokens.slice(first),
      layers: lens.layers.map(({ name, positions }) => ({ name, positions: positions.slice(first) })),
    };
    const { tokens, layers } = this.#lens;
    const next = tokens.slice(1).map((token) => showAsLabel(token.text));
    this.#column = null;
    this.element.replaceChildren(
      createElement(
        "caption",
        { class: "visually-hidden" },
        "The likeliest next token after each layer, and its probability",
      ),
      createElement(
        "thead",
        {},
        makeLabelRow(
          "token",
          "th",
          tokens.map((token) => showAsLabel(token.text)),
        ),
      ),
      createElement("tbody", {}, ...layers.map((layer) => makeRow(layer, tokens))),
      createElement("tfoot", {}, makeLabelRow("next token", "td", [...next, "?"])),
    );
    this.details.replaceChildren();
  }

  /**
   * Mark the column of a position, and list the likeliest tokens of each layer there.
   * @param {number} fromEnd The position, counted from the text's end: 1 is the last token.
   */
  showPosition(fromEnd) {
    const { tokens, layers } = this.#lens;
    const column = tokens.length - fromEnd;
    if (column < 0 || column >= tokens.length) return;
    for (const row of this.element.rows) {
      if (this.#column !== null) row.cells[this.#column + 1]?.classList.remove("active");
      row.cells[column + 1]?.classList.add("active");
    }
    this.#column = column;
    this.#scrollTo(column);
    const next = tokens[column + 1];
    const place = `After ${quote(tokens[column].text)}${next ? `; the next token is ${quote(next.text)}` : ""}:`;
    const lines = layers.map(({ name, positions }) => createElement("li", {}, describeLayer(name, positions[column])));
    this.details.replaceChildren(createElement("p", {}, place), createElement("ul", {}, ...lines));
  }

  /**
   * Scroll the table, and not the page, so that a column can be seen.
   * @param {number} column
   */
  #scrollTo(column) {
    const frame = this.element.parentElement;
    const cell = this.element.rows[0]?.cells[column + 1];
    if (frame && cell) frame.scrollLeft = cell.offsetLeft - frame.clientWidth / 2;
  }
}

/**
 * @param {string} name
 * @param {"th" | "td"} tag
 * @param {string[]} labels
 */
function makeLabelRow(name, tag, labels) {
  const scope = tag === "th" ? "col" : null;
  const cells = labels.map((label) => createElement(tag, { scope }, createElement("bdi", {}, label)));
  return createElement("tr", {}, createElement("th", { scope: "row" }, name), ...cells);
}

/**
 * @param {Lens["layers"][number]} layer
 * @param {Lens["tokens"]} tokens
 */
function makeRow({ name, positions }, tokens) {
  const cells = positions.map(({ top: [best] }, column) => {
    const isRight = tokens[column + 1]?.id === best.id;
    const cell = createElement(
      "td",
      { title: isRight ? "the token that comes next" : null },
      createElement("bdi", {}, showAsLabel(best.text)),
      createElement("span", { class: "lens-probability" }, `${formatPercent(best.probability)}${isRight ? " ✓" : ""}`),
    );
    cell.style.setProperty("--shade", best.probability.toFixed(3));
    return cell;
  });
  return createElement("tr", {}, createElement("th", { scope: "row" }, name), ...cells);
}

/**
 * @param {string} name
 * @param {LensPosition} position
 */
function describeLayer(name, { top, target }) {
  const likely = top.map(({ text, probability }) => `${quote(text)} ${formatPercent(probability)}`).join(", ");
  const next = target ? `; next token ${formatPercent(target.probability)}, rank ${target.rank}` : "";
  return `${name}: ${likely}${next}`;
}
