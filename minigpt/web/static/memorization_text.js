// A text whose passages are marked that stand word for word in the training text.

import { createElement } from "./dom.js";
import { formatCount, formatPercent } from "./format.js";
import { showInText } from "./visible_text.js";

/** @typedef {import("./backend.js").Memorization} Memorization */

const LEVELS = [40, 20, 10]; // characters; `shares` has the same

/**
 * Return the text with its passages marked.
 * @param {string} text
 * @param {Memorization} memorization
 * @returns {HTMLElement[]}
 */
export function markPassages(text, { lengths }) {
  const characters = Array.from(text);
  /** @type {HTMLElement[]} */
  const passages = [];
  for (let start = 0; start < characters.length;) {
    let end = start + 1;
    while (end < characters.length && lengths[end] === lengths[start]) end += 1;
    passages.push(markPassage(characters.slice(start, end).join(""), lengths[start]));
    start = end;
  }
  return passages;
}

/**
 * Return a sentence with the shares of the characters in long passages.
 * @param {Memorization} memorization
 * @returns {string}
 */
export function describeShares({ shares }) {
  const parts = [...LEVELS].reverse().map((level) => `${formatPercent(shares[level])} of at least ${level}`);
  return `Share of the characters that stand in a passage of the training text: ${parts.join(", ")} characters.`;
}

/**
 * @param {string} text
 * @param {number} length Characters of the passage around it.
 */
function markPassage(text, length) {
  const level = LEVELS.find((each) => length >= each);
  const title = level ? `in a passage of ${formatCount(length, "character")} of the training text` : null;
  return createElement(level ? "mark" : "span", { class: level ? `passage-${level}` : null, title }, showInText(text));
}
