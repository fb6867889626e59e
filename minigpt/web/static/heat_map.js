// Attention weights as heat maps on canvases: a pixel for each weight.

/**
 * Return how strongly a weight is shaded. The square root makes small weights visible.
 * @param {number} weight
 * @returns {number} From 0 to 1.
 */
export function shadeOf(weight) {
  return Math.sqrt(weight);
}

/**
 * Draw a head's weights: a row for each position, a column for each token that it looks at.
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} rows Row t has t + 1 weights.
 */
export function drawMap(canvas, rows) {
  drawRows(canvas, rows, rows.length);
}

/**
 * Draw one position's weights as a strip.
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} weights
 * @param {number} width The number of tokens of the text.
 */
export function drawStrip(canvas, weights, width) {
  drawRows(canvas, [weights], width);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} rows
 * @param {number} width
 */
function drawRows(canvas, rows, width) {
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, rows.length);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(canvas.width, canvas.height);
  const color = readColor(canvas);
  rows.forEach((weights, row) =>
    weights.forEach((weight, column) => {
      image.data.set([...color, 255 * shadeOf(weight)], 4 * (row * canvas.width + column));
    }),
  );
  context.putImageData(image, 0, 0);
}

/**
 * Return the color of the canvas's text, which the style sheet sets for the light and for the dark theme.
 * @param {HTMLCanvasElement} canvas
 * @returns {number[]} Red, green and blue.
 */
function readColor(canvas) {
  const numbers = getComputedStyle(canvas).color.match(/[\d.]+/g) ?? [];
  return numbers.slice(0, 3).map(Number);
}
