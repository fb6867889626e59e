// The text of a new training: Tiny Shakespeare, a text that the server has, or a new one, pasted or from a file.

import { createElement, find } from "./dom.js";
import { formatBytes } from "./format.js";

/** @typedef {import("./server_backend.js").ServerBackend} ServerBackend */

const [TINY_SHAKESPEARE, NEW] = ["tinyshakespeare", "new"];
const STORED = "stored:"; // before the name of a text that the server has

export class TextChoice {
  #backend;
  #select = find("#train-text", HTMLSelectElement);
  #newText = find("#train-new-text", HTMLElement);
  #paste = find("#train-paste", HTMLTextAreaElement);
  #file = find("#train-file", HTMLInputElement);

  /** @param {ServerBackend} backend */
  constructor(backend) {
    this.#backend = backend;
    this.#select.addEventListener("change", () => this.#showFields());
  }

  /**
   * Ask the server for its texts, and offer them.
   * @param {string} [chosen] The name of a text to choose.
   */
  async refresh(chosen) {
    const value = chosen === undefined ? this.#select.value : STORED + chosen;
    const texts = await this.#backend.texts();
    const stored = texts.map(({ name, bytes }) =>
      createElement("option", { value: STORED + name }, `${name} (${formatBytes(bytes)})`),
    );
    this.#select.replaceChildren(
      createElement("option", { value: TINY_SHAKESPEARE }, "Tiny Shakespeare"),
      createElement("option", { value: NEW }, "a new text: paste it, or choose a file"),
      ...stored,
    );
    const values = [...this.#select.options].map((option) => option.value);
    if (values.includes(value)) this.#select.value = value;
    this.#showFields();
  }

  /**
   * Return the name of the chosen text, null for Tiny Shakespeare. A new text is sent to the server first, and stays
   * chosen there.
   * @returns {Promise<string | null>}
   */
  async store() {
    const { value } = this.#select;
    if (value === TINY_SHAKESPEARE) return null;
    if (value !== NEW) return value.slice(STORED.length);
    const file = this.#file.files?.[0];
    const content = file ?? new Blob([this.#paste.value]);
    if (content.size === 0) throw new Error("The new text is empty: paste a text, or choose a file.");
    const { name } = await this.#backend.uploadText(file ? toName(file.name) : "pasted", content);
    this.#paste.value = "";
    this.#file.value = "";
    await this.refresh(name);
    return name;
  }

  #showFields() {
    this.#newText.hidden = this.#select.value !== NEW;
  }
}

/**
 * Return a file's name as the server accepts it, without the ending.
 * @param {string} file
 */
function toName(file) {
  const name = file
    .replace(/\.[^.]*$/, "")
    .replace(/[^\p{Letter}\p{Number}_-]+/gu, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 60);
  return /^[\p{Letter}\p{Number}_]/u.test(name) ? name : "text";
}
