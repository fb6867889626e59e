// Causal self-attention with a cache of keys and values.

import { dotRows, softmax } from "./numbers.js";

/** The keys and values of the tokens read so far, and the last input of each token shift. */
export class KVCache {
  length = 0;
  /** @type {Map<number, {keys: Float32Array, values: Float32Array}>} */
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
   */
  update(layer, k, v, C) {
    let stored = this.#layers.get(layer);
    if (!stored) {
      const size = this.#capacity * C;
      stored = { keys: new Float32Array(size), values: new Float32Array(size) };
      this.#layers.set(layer, stored);
    }
    stored.keys.set(k, this.length * C);
    stored.values.set(v, this.length * C);
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
 * @param {{keys: Float32Array, values: Float32Array}} stored Of all tokens, the new ones included.
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
      if (!isOff(head)) addValues(weights, stored.values, C, head * D, out, start, D);
    }
  }
  return out;
}

/**
 * Add the weighted values of a head to D numbers of `out`.
 * @param {Float32Array} weights
 * @param {Float32Array} values
 * @param {number} C
 * @param {number} offset
 * @param {Float32Array} out
 * @param {number} start
 * @param {number} D
 */
function addValues(weights, values, C, offset, out, start, D) {
  let s = 0;
  for (; s + 4 <= weights.length; s += 4) {
    const a = s * C + offset;
    const b = a + C;
    const c = b + C;
    const d = c + C;
    const wa = weights[s];
    const wb = weights[s + 1];
    const wc = weights[s + 2];
    const wd = weights[s + 3];
    for (let i = 0; i < D; i++) {
      out[start + i] += wa * values[a + i] + wb * values[b + i] + wc * values[c + i] + wd * values[d + i];
    }
  }
  for (; s < weights.length; s++) {
    for (let i = 0; i < D; i++) out[start + i] += weights[s] * values[s * C + offset + i];
  }
}
