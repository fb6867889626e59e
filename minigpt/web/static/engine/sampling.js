// From logits to a token, as minigpt/generation/filters.py does it, with the same random numbers for the same seed.

import { softmax } from "./numbers.js";

/** @typedef {{temperature?: number, top_k?: number, top_p?: number}} Sampling */

/**
 * Apply temperature, top-k and top-p, in this order. Excluded tokens get minus infinity.
 * @param {ArrayLike<number>} logits (V)
 * @param {Sampling} sampling A temperature of 0 keeps the likeliest token only.
 * @returns {Float64Array} (V)
 */
export function filterLogits(logits, { temperature = 1, top_k, top_p }) {
  const filtered = Float64Array.from(logits);
  const best = argmax(filtered);
  if (temperature === 0) return filtered.map((_, i) => (i === best ? 0 : -Infinity));
  const largest = filtered[best];
  for (let i = 0; i < filtered.length; i++) filtered[i] = (filtered[i] - largest) / temperature;
  if (top_k !== undefined) keepTopK(filtered, top_k);
  if (top_p !== undefined) keepTopP(filtered, top_p);
  return filtered;
}

/**
 * Keep the k largest logits, and those equal to the smallest of them.
 * @param {Float64Array} logits
 * @param {number} k
 */
function keepTopK(logits, k) {
  const kth = logits.slice().sort().at(-Math.min(k, logits.length)) ?? -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i] < kth) logits[i] = -Infinity;
}

/**
 * Keep the smallest set of likeliest tokens whose probabilities add up to p or more.
 * @param {Float64Array} logits
 * @param {number} p
 */
function keepTopP(logits, p) {
  const probabilities = logits.slice();
  softmax(probabilities);
  const ascending = Array.from(logits.keys()).sort((a, b) => logits[a] - logits[b] || a - b);
  let total = 0;
  for (const i of ascending.slice(0, -1)) {
    total += probabilities[i];
    if (total > 1 - p) break;
    logits[i] = -Infinity;
  }
}

/**
 * Return the first token at which the sum of the probabilities exceeds a random number.
 * @param {Float64Array} logits (V)
 * @param {number} uniform At least 0, below 1.
 */
export function sampleToken(logits, uniform) {
  const cumulative = logits.slice();
  softmax(cumulative);
  for (let i = 1; i < cumulative.length; i++) cumulative[i] += cumulative[i - 1];
  const total = cumulative[cumulative.length - 1];
  const lastPossible = cumulative.findIndex((sum) => sum >= total); // rounding must not lead past it
  const chosen = cumulative.findIndex((sum) => sum > uniform * total);
  return chosen < 0 ? lastPossible : Math.min(chosen, lastPossible);
}

/**
 * Return the place of the largest number, the first of equal ones.
 * @param {ArrayLike<number>} numbers
 */
export function argmax(numbers) {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > numbers[best]) best = i;
  return best;
}
