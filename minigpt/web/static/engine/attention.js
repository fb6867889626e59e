// Causal self-attention with a cache of keys and values.

import { dotRows, softmax } from "./numbers.js";

/**
 * @typedef {{keys: Float32Array, values: Float32Array}} StoredLayer Keys, a row for each token (block_size, C), and
 *   values, a row for each of the C numbers (C, block_size): so both are multiplied row by row.
 */

/** The keys and values of the tokens read so far, and the last input of each token shift. */
export class KVCache {
  length = 0;
  /** @type {Map<number, StoredLayer>} */
  #layers = new Map();
  /** @type {Map<string, Float32Array>} */
  #lastInputs = new Map();
  #capacity;

  /** @param {number} blockSize The largest number of tokens. */
  constructor(blockSize) {
    this.#capacity = blockSize;
  }

  /**
   * Add keys and values of new tokens to those of a layer, and return all of them.
   * @param {number} layer
   * @param {Float32Array} k (T, C)
   * @param {Float32Array} v (T, C)
   * @param {number} C
   * @returns {StoredLayer}
   */
  update(layer, k, v, C) {
    let stored = this.#layers.get(layer);
    if (!stored) {
      const size = this.#capacity * C;
      stored = { keys: new Float32Array(size), values: new Float32Array(size) };
      this.#layers.set(layer, stored);
    }
    stored.keys.set(k, this.length * C);
    for (let i = 0; i < v.length; i++) {
      stored.values[(i % C) * this.#capacity + this.length + Math.floor(i / C)] = v[i];
    }
    return stored;
  }

  /**
   * Store the last row of x (T, C), and return the row that was stored before; zeros at first.
   * @param {string} place
   * @param {Float32Array} x
   * @param {number} C
   */
  swapLastInput(place, x, C) {
    const previous = this.#lastInputs.get(place) ?? new Float32Array(C);
    this.#lastInputs.set(place, x.slice(x.length - C));
    return previous;
  }
}

/**
 * Let each new token look at the tokens up to itself.
 * @param {Float32Array} q Queries of the T new tokens (T, C), head beside head.
 * @param {StoredLayer} stored Of all tokens, the new ones included.
 * @param {{C: number, heads: number, past: number, isOff: (head: number) => boolean}} shape `past` tokens stand before
 *   the new ones. The output of a head that is off is zero.
 * @param {(head: number, t: number, weights: Float32Array) => void} [onWeights] Is told the weights of each head and
 *   new token.
 * @returns {Float32Array} (T, C)
 */
export function attend(q, stored, { C, heads, past, isOff }, onWeights) {
  const T = q.length / C;
  const D = C / heads;
  const scale = 1 / Math.sqrt(D);
  const capacity = stored.values.length / C;
  const out = new Float32Array(T * C);
  for (let head = 0; head < heads; head++) {
    if (isOff(head) && !onWeights) continue;
    for (let t = 0; t < T; t++) {
      const start = t * C + head * D;
      const weights = new Float32Array(past + t + 1);
      dotRows(q, start, stored.keys, head * D, C, D, weights, 0, weights.length);
      for (let s = 0; s < weights.length; s++) weights[s] *= scale;
      softmax(weights);
      onWeights?.(head, t, weights);
      if (isOff(head)) continue;
      dotRows(weights, 0, stored.values, head * D * capacity, capacity, weights.length, out, start, D);
    }
  }
  return out;
}
