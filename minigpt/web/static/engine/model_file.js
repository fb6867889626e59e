// Read the model that minigpt/web/offline.py wrote into the page.

import { BPETokenizer } from "./bpe_tokenizer.js";
import { CharTokenizer } from "./char_tokenizer.js";
import { buildModel } from "./model.js";

/**
 * @typedef {import("./model.js").ModelConfig} ModelConfig
 * @typedef {{name: string, shape: number[], start: number, scales: number | null}} StoredTensor `start` and `scales` are
 *   places in the bytes of the weights. With scales the tensor has 8 bits a number, and a scale for each row.
 *
 * @typedef {object} ModelFile
 * @property {import("../backend.js").Run} run
 * @property {ModelConfig} config
 * @property {StoredTensor[]} tensors
 * @property {any} tokenizer
 * @property {number[]} ends The tokens that end a text.
 * @property {Record<string, number> | null} chat_tokens The ids of the tokens of a conversation, by their names.
 * @property {number | null} exchanges How many questions of a conversation the model sees at most.
 * @property {import("../backend.js").Evaluation[]} metrics
 * @property {import("../backend.js").Snapshot[]} snapshots
 */

/**
 * Build the model and the tokenizer.
 * @param {ModelFile} file
 * @param {Uint8Array} bytes The weights.
 */
export function openModelFile(file, bytes) {
  const weights = Object.fromEntries(file.tensors.map((tensor) => [tensor.name, readTensor(tensor, bytes)]));
  const Tokenizer = file.tokenizer.kind === "bpe" ? BPETokenizer : CharTokenizer;
  return { model: buildModel(file.config, weights), tokenizer: new Tokenizer(file.tokenizer) };
}

/**
 * @param {StoredTensor} tensor
 * @param {Uint8Array} bytes
 * @returns {Float32Array}
 */
function readTensor({ shape, start, scales }, bytes) {
  const size = shape.reduce((product, length) => product * length, 1);
  if (scales === null) return new Float32Array(bytes.buffer, start, size);
  const codes = new Int8Array(bytes.buffer, start, size);
  const scaleOfRow = new Float32Array(bytes.buffer, scales, shape[0]);
  const rowLength = size / shape[0];
  return Float32Array.from(codes, (code, i) => code * scaleOfRow[Math.floor(i / rowLength)]);
}

/**
 * Decode base64.
 * @param {string} text Without white space.
 * @returns {Uint8Array}
 */
export function decodeBase64(text) {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  const PART = 2 ** 20; // characters; a multiple of 4
  for (let start = 0, place = 0; start < text.length; start += PART) {
    const part = atob(text.slice(start, start + PART));
    for (let i = 0; i < part.length; i++) bytes[place++] = part.charCodeAt(i);
  }
  return bytes;
}
