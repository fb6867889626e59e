// What the views show of a distribution.

import { softmax } from "./numbers.js";

/**
 * Return the probabilities of logits.
 * @param {ArrayLike<number>} logits (V)
 * @returns {Float64Array} (V)
 */
export function probabilities(logits) {
  const result = Float64Array.from(logits);
  softmax(result);
  return result;
}

/**
 * Return the rank of a token, from 1: one more than the number of likelier tokens.
 * @param {ArrayLike<number>} logits
 * @param {number} id
 */
export function rankOf(logits, id) {
  let rank = 1;
  for (let i = 0; i < logits.length; i++) if (logits[i] > logits[id]) rank++;
  return rank;
}

/**
 * Return the places of the largest numbers, the largest first.
 * @param {Float64Array} numbers
 * @param {number} count
 */
export function topIndices(numbers, count) {
  return Array.from(numbers.keys())
    .sort((a, b) => numbers[b] - numbers[a] || a - b)
    .slice(0, count);
}

/**
 * Return the entropy of probabilities in bits.
 * @param {Float64Array} probabilities
 */
export function entropyBits(probabilities) {
  let bits = 0;
  for (const p of probabilities) if (p > 0) bits -= p * Math.log2(p);
  return bits;
}
