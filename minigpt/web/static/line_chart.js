// Curves over the steps of a training, as SVG.

import { createElement, createSvg } from "./dom.js";
import { formatNumber } from "./format.js";

const HEIGHT = 280;
const [LEFT, RIGHT, TOP, BOTTOM] = [48, 16, 12, 40]; // margins around the curves
const MAX_TICKS = 5;
const DIGIT_WIDTH = 7.5; // CSS pixels, at most
const MAX_DOTS = 100; // a curve with more points has no dots
const STYLES = 8; // of curves, after which the styles begin anew

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{name: string, points: Point[]}} Curve
 * @typedef {{name: string, y: number}} Level A value to compare with.
 */

/**
 * Draw curves, each in a style of its own.
 * @param {Curve[]} curves Each has at least one point, and its points have ascending x.
 * @param {{x: string, y: string}} labels Of the axes.
 * @param {number} width Of the picture, in CSS pixels.
 * @param {Level[]} [levels] Drawn as horizontal lines.
 * @returns {HTMLElement} A figure with a legend.
 */
export function drawCurves(curves, labels, width, levels = []) {
  const points = curves.flatMap((curve) => curve.points);
  const xTicks = chooseTicks(points.map(({ x }) => x));
  const yTicks = chooseTicks([...points, ...levels].map(({ y }) => y));
  const right = width - RIGHT;
  const toX = makeScale(xTicks, LEFT, right);
  const toY = makeScale(yTicks, HEIGHT - BOTTOM, TOP);
  const svg = createSvg(
    "svg",
    { class: "curves", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" },
    ...yTicks.map((y) => drawRow(toY(y), right, formatTick(y, yTicks))),
    ...xTicks.map((x) => drawTick(toX(x), formatTick(x, xTicks), width)),
    drawText((LEFT + right) / 2, HEIGHT - 4, labels.x),
    ...levels.map(({ y }) => createSvg("line", { class: "level", x1: LEFT, x2: right, y1: toY(y), y2: toY(y) })),
    ...curves.map((curve, number) => drawCurve(curve, number, toX, toY)),
  );
  svg.setAttribute("aria-label", describeCurves(curves, labels, levels));
  const names = [
    ...curves.map(({ name }, number) => drawKey(name, `legend-${number % STYLES}`)),
    ...levels.map(({ name }) => drawKey(name, "legend-level")),
  ];
  return createElement("figure", {}, createElement("figcaption", {}, `${labels.y}: `, ...names), svg);
}

/**
 * @param {string} name
 * @param {string} style
 */
function drawKey(name, style) {
  return createElement("bdi", { class: `legend ${style}` }, name);
}

/**
 * Return round numbers around values, at equal distances.
 * @param {number[]} values
 * @returns {number[]} At least two, ascending.
 */
function chooseTicks(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const range = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(range / MAX_TICKS));
  const step = power * ([1, 2, 5, 10].find((factor) => power * factor * MAX_TICKS >= range) ?? 10);
  const first = Math.floor(low / step);
  const count = Math.max(1, Math.ceil(high / step) - first);
  return Array.from({ length: count + 1 }, (_, number) => (first + number) * step);
}

/**
 * @param {number[]} ticks
 * @param {number} from The coordinate of the first tick.
 * @param {number} to The coordinate of the last one.
 * @returns {(value: number) => number}
 */
function makeScale(ticks, from, to) {
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

/**
 * @param {number} value
 * @param {number[]} ticks
 */
function formatTick(value, ticks) {
  return formatNumber(value, Math.max(0, Math.ceil(-Math.log10(ticks[1] - ticks[0]) - 1e-9)));
}

/**
 * @param {number} y
 * @param {number} right
 * @param {string} label
 */
function drawRow(y, right, label) {
  const line = createSvg("line", { x1: LEFT, x2: right, y1: y, y2: y });
  return createSvg("g", {}, line, createSvg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, label));
}

/**
 * Draw a number under the curves, a long one so far to the left that it stays inside.
 * @param {number} x
 * @param {string} label
 * @param {number} width Of the picture.
 */
function drawTick(x, label, width) {
  return drawText(Math.min(x, width - (label.length * DIGIT_WIDTH) / 2), HEIGHT - BOTTOM + 18, label);
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} text
 */
function drawText(x, y, text) {
  return createSvg("text", { x, y, "text-anchor": "middle" }, text);
}

/**
 * @param {Curve} curve
 * @param {number} number
 * @param {(x: number) => number} toX
 * @param {(y: number) => number} toY
 */
function drawCurve({ name, points }, number, toX, toY) {
  const corners = points.map(({ x, y }) => `${toX(x).toFixed(1)},${toY(y).toFixed(1)}`).join(" ");
  const dotted = points.length > MAX_DOTS ? [] : points;
  const dots = dotted.map(({ x, y }) => {
    const title = createSvg("title", {}, `${name} at step ${formatNumber(x)}: ${formatNumber(y, 4)}`);
    return createSvg("circle", { cx: toX(x), cy: toY(y), r: 3 }, title);
  });
  return createSvg("g", { class: `curve curve-${number % STYLES}` }, createSvg("polyline", { points: corners }), ...dots);
}

/**
 * @param {Curve[]} curves
 * @param {{x: string, y: string}} labels
 * @param {Level[]} levels
 */
function describeCurves(curves, labels, levels) {
  const parts = curves.map(({ name, points }) => {
    const [first, last] = [points[0], points[points.length - 1]];
    const [from, to] = [first, last].map(({ x, y }) => `${formatNumber(y, 2)} at ${formatNumber(x)}`);
    return `${name} from ${from} to ${to}`;
  });
  const others = levels.map(({ name, y }) => `${name} ${formatNumber(y, 2)}`);
  return `${labels.y} by ${labels.x}: ${[...parts, ...others].join("; ")}`;
}
