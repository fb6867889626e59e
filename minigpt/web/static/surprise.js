// How much a token surprised a model, and how strongly the page shades it.

/** The surprise, in bits, that has the strongest shade: a probability of 1 in 256. */
export const STRONGEST = 8;

/**
 * Return the shade of a token.
 * @param {number} probability
 * @returns {number} From 0 for a certain token to 1.
 */
export function shadeOfProbability(probability) {
  return Math.min(1, Math.max(0, -Math.log2(probability)) / STRONGEST);
}

/**
 * Convert a loss to bits.
 * @param {number} nats
 * @returns {number}
 */
export function toBits(nats) {
  return nats / Math.LN2;
}
