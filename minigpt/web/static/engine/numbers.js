// The arithmetic of the layers, on plain arrays of numbers. A matrix with T rows of C numbers is one Float32Array, row
// after row. Sums are in 64 bits, results in 32.

const LAYER_NORM_EPSILON = 1e-5;
const RMS_NORM_EPSILON = 1e-6;
const TILE_ROWS = 4; // rows that are multiplied together

/**
 * Multiply rows by the transpose of a weight, and add a bias.
 * @param {Float32Array} x (T, I)
 * @param {number} T
 * @param {Float32Array} weight (O, I)
 * @param {Float32Array | null} bias (O)
 * @param {number} O
 * @returns {Float32Array} (T, O)
 */
export function multiply(x, T, weight, bias, O) {
  const I = weight.length / O;
  const y = new Float32Array(T * O);
  const tiledRows = T - (T % TILE_ROWS);
  const tiledOutputs = tiledRows > 0 ? O - (O % 2) : 0;
  if (tiledOutputs > 0) multiplyTiles(new Float64Array(x.subarray(0, tiledRows * I)), weight, I, tiledOutputs, y, O);
  for (let t = 0; t < T; t++) {
    const first = t < tiledRows ? tiledOutputs : 0;
    if (first < O) dotRows(x, t * I, weight, first * I, I, I, y, t * O + first, O - first);
  }
  if (bias !== null) addToRows(y, bias);
  return y;
}

/**
 * Compute the first outputs of rows. Each number of 32 bits becomes one of 64 bits once, and not for each product.
 * @param {Float64Array} x (T, I); T is a multiple of TILE_ROWS.
 * @param {Float32Array} weight (O, I)
 * @param {number} I
 * @param {number} outputs How many outputs, an even number.
 * @param {Float32Array} y (T, O)
 * @param {number} O
 */
function multiplyTiles(x, weight, I, outputs, y, O) {
  const pair = new Float64Array(2 * I);
  for (let o = 0; o < outputs; o += 2) {
    pair.set(weight.subarray(o * I, (o + 2) * I));
    for (let t = 0; t < x.length / I; t += TILE_ROWS) multiplyTile(x, t, I, pair, o, y, O);
  }
}

/**
 * Compute two adjacent outputs of four adjacent rows, so that each number is read once for several products.
 * @param {Float64Array} x (T, I)
 * @param {number} t The first row.
 * @param {number} I
 * @param {Float64Array} pair The weights of the two outputs (2, I).
 * @param {number} o The first output.
 * @param {Float32Array} y (T, O)
 * @param {number} O
 */
function multiplyTile(x, t, I, pair, o, y, O) {
  const a = t * I;
  const b = a + I;
  const c = b + I;
  const d = c + I;
  let ap = 0;
  let aq = 0;
  let bp = 0;
  let bq = 0;
  let cp = 0;
  let cq = 0;
  let dp = 0;
  let dq = 0;
  for (let i = 0; i < I; i++) {
    const p = pair[i];
    const q = pair[I + i];
    ap += x[a + i] * p;
    aq += x[a + i] * q;
    bp += x[b + i] * p;
    bq += x[b + i] * q;
    cp += x[c + i] * p;
    cq += x[c + i] * q;
    dp += x[d + i] * p;
    dq += x[d + i] * q;
  }
  const place = t * O + o;
  y[place] = ap;
  y[place + 1] = aq;
  y[place + O] = bp;
  y[place + O + 1] = bq;
  y[place + 2 * O] = cp;
  y[place + 2 * O + 1] = cq;
  y[place + 3 * O] = dp;
  y[place + 3 * O + 1] = dq;
}

/**
 * Add a row to each row, in place.
 * @param {Float32Array} y (T, O)
 * @param {Float32Array} row (O)
 */
function addToRows(y, row) {
  const O = row.length;
  for (let start = 0; start < y.length; start += O) {
    for (let o = 0; o < O; o++) y[start + o] += row[o];
  }
}

/**
 * Multiply a vector by rows: put the sum of the products with each row into `out`. Eight rows share each number of the
 * vector, and no sum waits for another.
 * @param {Float32Array} vector
 * @param {number} start Where the vector begins.
 * @param {Float32Array} rows
 * @param {number} first Where the first row begins.
 * @param {number} stride The distance from a row to the next one.
 * @param {number} length The length of the vector and of a row.
 * @param {Float32Array} out
 * @param {number} place Where the first sum goes.
 * @param {number} count The number of rows.
 */
export function dotRows(vector, start, rows, first, stride, length, out, place, count) {
  let row = 0;
  for (; row + 8 <= count; row += 8) {
    const a = first + row * stride;
    const b = a + stride;
    const c = b + stride;
    const d = c + stride;
    const e = d + stride;
    const f = e + stride;
    const g = f + stride;
    const h = g + stride;
    let sa = 0;
    let sb = 0;
    let sc = 0;
    let sd = 0;
    let se = 0;
    let sf = 0;
    let sg = 0;
    let sh = 0;
    for (let i = 0; i < length; i++) {
      const number = vector[start + i];
      sa += number * rows[a + i];
      sb += number * rows[b + i];
      sc += number * rows[c + i];
      sd += number * rows[d + i];
      se += number * rows[e + i];
      sf += number * rows[f + i];
      sg += number * rows[g + i];
      sh += number * rows[h + i];
    }
    const y = place + row;
    out[y] = sa;
    out[y + 1] = sb;
    out[y + 2] = sc;
    out[y + 3] = sd;
    out[y + 4] = se;
    out[y + 5] = sf;
    out[y + 6] = sg;
    out[y + 7] = sh;
  }
  for (; row < count; row++) {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += vector[start + i] * rows[first + row * stride + i];
    out[place + row] = sum;
  }
}

/**
 * Normalize each row to mean 0 and variance 1, then scale and shift it.
 * @param {Float32Array} x (T, C)
 * @param {Float32Array} gain (C)
 * @param {Float32Array} bias (C)
 */
export function layerNorm(x, gain, bias) {
  const C = gain.length;
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += C) {
    let mean = 0;
    for (let c = 0; c < C; c++) mean += x[start + c];
    mean /= C;
    let variance = 0;
    for (let c = 0; c < C; c++) variance += (x[start + c] - mean) * (x[start + c] - mean);
    const scale = 1 / Math.sqrt(variance / C + LAYER_NORM_EPSILON);
    for (let c = 0; c < C; c++) y[start + c] = (x[start + c] - mean) * scale * gain[c] + bias[c];
  }
  return y;
}

/**
 * Scale each row of C numbers so that the mean of its squares is 1.
 * @param {Float32Array} x (..., C)
 * @param {number} C
 */
export function rmsNorm(x, C) {
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += C) {
    let squares = 0;
    for (let c = 0; c < C; c++) squares += x[start + c] * x[start + c];
    const scale = 1 / Math.sqrt(squares / C + RMS_NORM_EPSILON);
    for (let c = 0; c < C; c++) y[start + c] = x[start + c] * scale;
  }
  return y;
}

/** @type {Record<string, (x: number) => number>} The functions between the two layers of feed-forward. */
export const ACTIVATIONS = {
  relu: (x) => (x > 0 ? x : 0),
  squared_relu: (x) => (x > 0 ? x * x : 0),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu_exact: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
};

/**
 * Return the error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
 * @param {number} x
 */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const polynomial = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - polynomial * Math.exp(-x * x));
}

/**
 * Turn numbers into probabilities, in place.
 * @param {Float32Array | Float64Array} scores
 */
export function softmax(scores) {
  let largest = -Infinity;
  for (let i = 0; i < scores.length; i++) if (scores[i] > largest) largest = scores[i];
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - largest);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
}
