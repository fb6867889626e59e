// The models: token ids in, logits out. Each computes the function of its file in minigpt/model.

import { KVCache } from "./attention.js";
import { GPT } from "./gpt.js";
import { MODERN } from "./modern.js";
import { Transformer, pickRows } from "./transformer.js";

/**
 * @typedef {object} ModelConfig As in the run's config.toml.
 * @property {"gpt" | "modern" | "bigram"} architecture
 * @property {number} vocab_size
 * @property {number} block_size
 * @property {number} n_embd
 * @property {number} n_head
 * @property {number} n_layer
 * @property {string} activation
 *
 * @typedef {Record<string, Float32Array>} Weights By the names of the run's file of weights.
 *
 * @typedef {object} Options
 * @property {boolean} [lastOnly] Compute the logits of the last token only.
 * @property {[number, number][]} [headsOff] Heads whose output is zero: pairs of a block and a head.
 * @property {(block: number, head: number, t: number, weights: Float32Array) => void} [onWeights] Is told where each
 *   head looks from each token.
 * @property {(layer: number, predict: () => Float32Array) => void} [onLayer] Is called after the embedding (0) and each
 *   block (from 1); `predict` returns the logits that the last norm and the head give for the residual stream there.
 *
 * @typedef {object} Model
 * @property {ModelConfig} config
 * @property {() => KVCache} createCache
 * @property {(ids: number[], cache: KVCache, options?: Options) => Float32Array} forward Reads T more tokens, and
 *   returns their logits (T, V), or with `lastOnly` (1, V). With the tokens in the cache they are at most block_size.
 */

/**
 * Build the model that a configuration describes.
 * @param {ModelConfig} config
 * @param {Weights} weights
 * @returns {Model}
 */
export function buildModel(config, weights) {
  if (config.architecture === "bigram") return new Bigram(config, weights);
  return new Transformer(config, weights, config.architecture === "modern" ? MODERN : GPT);
}

/** A table with the logits of the next token for each token. */
class Bigram {
  #table;

  /**
   * @param {ModelConfig} config
   * @param {Weights} weights
   */
  constructor(config, weights) {
    this.config = config;
    this.#table = weights["token_embedding_table.weight"];
  }

  createCache() {
    return new KVCache(this.config.block_size);
  }

  /** @type {Model["forward"]} */
  forward(ids, cache, { lastOnly = false } = {}) {
    cache.length += ids.length;
    return pickRows(this.#table, lastOnly ? ids.slice(-1) : ids, this.config.vocab_size);
  }
}
