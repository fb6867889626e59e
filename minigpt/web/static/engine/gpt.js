// The parts of the lecture's GPT and of GPT-2. minigpt/model/gpt.py has the same function in Python.

import { layerNorm } from "./numbers.js";
import { pickRows } from "./transformer.js";

/** @typedef {import("./transformer.js").Parts} Parts */

/** @type {Parts} */
export const GPT = {
  embed({ config, weights }, ids, cache) {
    const C = config.n_embd;
    const x = pickRows(weights["token_embedding_table.weight"], ids, C);
    const positions = weights["position_embedding_table.weight"];
    for (let i = 0; i < x.length; i++) x[i] += positions[cache.length * C + i];
    return x;
  },

  normalize({ weights }, x, name) {
    return layerNorm(x, weights[`${name}.weight`], weights[`${name}.bias`]);
  },

  project(model, x, block) {
    const C = model.config.n_embd;
    const qkv = model.linear(x, `blocks.${block}.attention.qkv`, 3 * C); // (T, 3C)
    return [0, 1, 2].map((part) => pickColumns(qkv, 3 * C, part * C, C));
  },

  feedForward(model, x, block) {
    return model.applyFeedForward(x, block, model.config.activation);
  },
};

/**
 * Return some columns of rows.
 * @param {Float32Array} x
 * @param {number} width The length of a row.
 * @param {number} start
 * @param {number} count
 */
function pickColumns(x, width, start, count) {
  const T = x.length / width;
  const columns = new Float32Array(T * count);
  for (let t = 0; t < T; t++) {
    columns.set(x.subarray(t * width + start, t * width + start + count), t * count);
  }
  return columns;
}
