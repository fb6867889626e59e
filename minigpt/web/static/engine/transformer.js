// What GPT and Modern share: a residual stream, to which each block adds. gpt.js and modern.js have the parts in which
// they differ.

import { KVCache, attend } from "./attention.js";
import { ACTIVATIONS, multiply } from "./numbers.js";

const LAST_ROWS = 2; // what the last block computes for the last token: the token shift of Modern reads a row before it

/**
 * @typedef {import("./model.js").ModelConfig} ModelConfig
 * @typedef {import("./model.js").Weights} Weights
 * @typedef {import("./model.js").Options} Options
 *
 * The parts in which two architectures differ. Rows are (T, C).
 * @typedef {object} Parts
 * @property {(model: Transformer, ids: number[], cache: KVCache) => Float32Array} embed
 * @property {(model: Transformer, x: Float32Array, name: string) => Float32Array} normalize
 * @property {(model: Transformer, x: Float32Array, block: number, past: number) => Float32Array[]} project Returns
 *   queries, keys and values.
 * @property {(model: Transformer, x: Float32Array, block: number, cache: KVCache) => Float32Array} feedForward
 */

export class Transformer {
  #parts;

  /**
   * @param {ModelConfig} config
   * @param {Weights} weights
   * @param {Parts} parts
   */
  constructor(config, weights, parts) {
    this.config = config;
    this.weights = weights;
    this.#parts = parts;
  }

  createCache() {
    return new KVCache(this.config.block_size);
  }

  /**
   * As `Model.forward`.
   * @param {number[]} ids
   * @param {KVCache} cache
   * @param {Options} [options]
   */
  forward(ids, cache, options = {}) {
    const { n_embd: C, n_layer } = this.config;
    let x = this.#parts.embed(this, ids, cache);
    options.onLayer?.(0, () => this.#predict(x, options));
    for (let block = 0; block < n_layer; block++) {
      const normalized = this.#parts.normalize(this, x, `blocks.${block}.ln1`);
      if (options.lastOnly && block === n_layer - 1) x = x.slice(-LAST_ROWS * C);
      addTo(x, this.#attend(normalized, x.length / C, block, cache, options));
      addTo(x, this.#parts.feedForward(this, this.#parts.normalize(this, x, `blocks.${block}.ln2`), block, cache));
      options.onLayer?.(block + 1, () => this.#predict(x, options));
    }
    cache.length += ids.length;
    return this.#predict(x, options);
  }

  /**
   * Apply the linear layer of a name to rows; it gives O numbers for each.
   * @param {Float32Array} x
   * @param {string} name
   * @param {number} O
   */
  linear(x, name, O) {
    const weight = this.weights[`${name}.weight`];
    return multiply(x, (x.length * O) / weight.length, weight, this.weights[`${name}.bias`] ?? null, O);
  }

  /**
   * Apply the two layers of a feed-forward network.
   * @param {Float32Array} x
   * @param {number} block
   * @param {string} activation A key of ACTIVATIONS.
   */
  applyFeedForward(x, block, activation) {
    const { n_embd: C } = this.config;
    const activate = ACTIVATIONS[activation];
    const hidden = this.linear(x, `blocks.${block}.ffwd.up`, 4 * C);
    for (let i = 0; i < hidden.length; i++) hidden[i] = activate(hidden[i]);
    return this.linear(hidden, `blocks.${block}.ffwd.down`, C);
  }

  /**
   * Let the last tokens of x look at the cached tokens and at those of x.
   * @param {Float32Array} x (T, C)
   * @param {number} count The number of tokens that look.
   * @param {number} block
   * @param {KVCache} cache
   * @param {Options} options
   * @returns {Float32Array} (count, C)
   */
  #attend(x, count, block, cache, { headsOff = [], onWeights }) {
    const { n_embd: C, n_head: heads } = this.config;
    const off = new Set(headsOff.filter(([each]) => each === block).map(([, head]) => head));
    const [q, k, v] = this.#parts.project(this, x, block, cache.length);
    const past = cache.length + x.length / C - count;
    const shape = { C, heads, past, isOff: (/** @type {number} */ head) => off.has(head) };
    const stored = cache.update(block, k, v, C);
    const out = attend(q.subarray(q.length - count * C), stored, shape, onWeights && onWeights.bind(null, block));
    return this.linear(out, `blocks.${block}.attention.proj`, C);
  }

  /**
   * Return the logits that the last norm and the head give for rows of the residual stream.
   * @param {Float32Array} x
   * @param {Options} options
   */
  #predict(x, { lastOnly }) {
    const { n_embd: C, vocab_size: V } = this.config;
    const rows = this.#parts.normalize(this, lastOnly ? x.slice(-C) : x, "ln_f");
    const { "lm_head.weight": head, "lm_head.bias": bias, "token_embedding_table.weight": table } = this.weights;
    return multiply(rows, rows.length / C, head ?? table, bias ?? null, V); // a tied head is the embedding table
  }
}

/**
 * Return the rows of a table (N, C) for ids (T).
 * @param {Float32Array} table
 * @param {number[]} ids
 * @param {number} C
 */
export function pickRows(table, ids, C) {
  const rows = new Float32Array(ids.length * C);
  ids.forEach((id, t) => rows.set(table.subarray(id * C, (id + 1) * C), t * C));
  return rows;
}

/**
 * @param {Float32Array} x
 * @param {Float32Array} y
 */
function addTo(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}
