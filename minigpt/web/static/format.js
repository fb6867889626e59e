// Numbers and dates as the page shows them.

export const NONE = "–";

/**
 * @param {number} probability
 * @returns {string} Such as "61.3%".
 */
export function formatPercent(probability) {
  const percent = probability * 100;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "<0.01%";
  return `${percent >= 99.95 ? percent.toFixed(0) : percent.toFixed(percent < 1 ? 2 : 1)}%`;
}

/**
 * @param {number | null | undefined} number
 * @param {number} digits
 * @returns {string}
 */
export function formatNumber(number, digits = 0) {
  if (number === null || number === undefined) return NONE;
  return number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/**
 * @param {number | null | undefined} bytes
 * @returns {string} Such as "2.4 MB".
 */
export function formatBytes(bytes) {
  if (bytes === null || bytes === undefined) return NONE;
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = bytes < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  return `${formatNumber(bytes / 1000 ** power, power === 0 ? 0 : 1)} ${units[power]}`;
}

/**
 * @param {string | null | undefined} date ISO 8601.
 * @returns {string}
 */
export function formatDate(date) {
  if (!date || Number.isNaN(Date.parse(date))) return NONE;
  return new Date(date).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/**
 * @param {number} count
 * @param {string} noun In the singular.
 * @returns {string} Such as "1 token" or "2,000 tokens".
 */
export function formatCount(count, noun) {
  return `${formatNumber(count)} ${noun}${count === 1 ? "" : "s"}`;
}
