// The last block_size tokens of a text, as minigpt/model/kv_cache.py keeps them.

/**
 * @typedef {import("./model.js").Model} Model
 * @typedef {import("./model.js").Options} Options
 */

export class ContextWindow {
  #model;
  #options;
  #cache;
  /** @type {number[]} */
  #ids = [];

  /**
   * @param {Model} model
   * @param {Options} [options]
   */
  constructor(model, options = {}) {
    this.#model = model;
    this.#options = { ...options, lastOnly: true };
    this.#cache = model.createCache();
  }

  /**
   * Read more tokens, and return the logits of the token that follows them.
   * @param {number[]} ids At least one.
   */
  read(ids) {
    const { block_size } = this.#model.config;
    this.#ids = [...this.#ids, ...ids].slice(-block_size);
    const isMoved = this.#cache.length + ids.length > block_size; // every token has a new position: read all again
    if (isMoved) this.#cache = this.#model.createCache();
    return this.#model.forward(isMoved ? this.#ids : ids, this.#cache, this.#options);
  }
}
