// Characters as tokens, as minigpt/tokenizers/char.py has them.

import { BackendError } from "../backend.js";

export class CharTokenizer {
  #ids = new Map();
  #unknown;
  #texts;

  /** @param {{characters: string[], special_tokens: string[], unknown: string | null}} vocabulary */
  constructor({ characters, special_tokens, unknown }) {
    characters.forEach((character, id) => this.#ids.set(character, id));
    this.#texts = [...characters, ...special_tokens];
    this.#unknown = unknown === null ? null : this.#ids.get(unknown);
  }

  /**
   * @param {string} text
   * @returns {number[]}
   */
  encode(text) {
    return Array.from(text, (character, place) => {
      const id = this.#ids.get(character) ?? this.#unknown;
      if (id !== null) return id;
      const code = /** @type {number} */ (character.codePointAt(0)).toString(16).toUpperCase().padStart(4, "0");
      const size = this.#ids.size;
      throw new BackendError(
        `The character U+${code} at position ${place} is not among the ${size} characters of this vocabulary: remove it.`,
      );
    });
  }

  /**
   * Return the text of a token.
   * @param {number} id
   * @returns {string}
   */
  text(id) {
    return this.#texts[id];
  }
}
