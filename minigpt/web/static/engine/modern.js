// The parts of the network of the record. minigpt/model/modern.py has the same function in Python, and explains it.

import { rmsNorm } from "./numbers.js";
import { pickRows } from "./transformer.js";

/** @typedef {import("./transformer.js").Parts} Parts */

const SLOWEST_ROTATION = 1 / 1024; // radians for each position; the fastest pair rotates by 1 radian

/** @type {Parts} */
export const MODERN = {
  embed({ config, weights }, ids, cache) {
    const C = config.n_embd;
    const x = pickRows(weights["token_embedding_table.weight"], ids, C);
    return rmsNorm(shift(x, weights["token_shift_weight"], cache.swapLastInput("embedding", x, C)), C);
  },

  normalize({ config }, x) {
    return rmsNorm(x, config.n_embd);
  },

  project(model, x, block, past) {
    const { n_embd: C, n_head: heads } = model.config;
    const D = C / heads;
    const part = (/** @type {string} */ name) => model.linear(x, `blocks.${block}.attention.${name}`, C);
    const turn = (/** @type {string} */ name) => rotate(rmsNorm(part(name), D), C, D, past);
    return [turn("query"), turn("key"), part("value")];
  },

  feedForward(model, x, block, cache) {
    const previous = cache.swapLastInput(`block ${block}`, x, model.config.n_embd);
    const shifted = shift(x, model.weights[`blocks.${block}.ffwd.token_shift_weight`], previous);
    return model.applyFeedForward(shifted, block, "squared_relu");
  },
};

/**
 * Add to each row a share of the one before it.
 * @param {Float32Array} x (T, C)
 * @param {Float32Array} weight (C)
 * @param {Float32Array} previous The row before the first one (C).
 */
function shift(x, weight, previous) {
  const C = weight.length;
  const y = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) y[i] = x[i] + (i < C ? previous[i] : x[i - C]) * weight[i % C];
  return y;
}

/**
 * Rotate each head's pairs of numbers by angles that grow with the position, in place.
 * @param {Float32Array} x (T, C)
 * @param {number} C
 * @param {number} D The size of a head.
 * @param {number} past The position of the first row.
 */
function rotate(x, C, D, past) {
  const half = D / 2;
  const rotating = Math.max(1, Math.floor(D / 4)); // the other pairs do not depend on the position
  for (let pair = 0; pair < rotating; pair++) {
    const speed = SLOWEST_ROTATION ** (rotating > 1 ? pair / (rotating - 1) : 0);
    for (let t = 0; t < x.length / C; t++) {
      const [cos, sin] = [Math.cos((past + t) * speed), Math.sin((past + t) * speed)];
      for (let first = t * C + pair; first < (t + 1) * C; first += D) {
        const [a, b] = [x[first], x[first + half]];
        x[first] = a * cos - b * sin;
        x[first + half] = a * sin + b * cos;
      }
    }
  }
  return x;
}
