// A conversation as token ids, as minigpt/tokenizers/chat_format.py and minigpt/runs/chat.py write it.

import { BackendError } from "../backend.js";

/** @typedef {import("../backend.js").Message} Message */

const ANSWER_SHARE = 4; // a quarter of block_size is kept free for the answer

/**
 * Encode the last messages, as many as leave room for an answer. The last message is the user's.
 * @param {Message[]} messages
 * @param {object} format
 * @param {(text: string) => number[]} format.encode
 * @param {Record<string, number>} format.chatTokens
 * @param {number} format.blockSize
 * @param {number | null} format.exchanges
 * @returns {number[]}
 */
export function encodeConversation(messages, { encode, chatTokens, blockSize, exchanges }) {
  const limit = blockSize - Math.max(1, Math.floor(blockSize / ANSWER_SHARE));
  let starts = messages.flatMap((message, place) => (message.role === "user" ? [place] : []));
  if (exchanges) starts = starts.slice(-exchanges);
  let ids = /** @type {number[]} */ ([]);
  for (const start of starts) {
    ids = messages.slice(start).flatMap(({ role, content }) => {
      const end = role === "assistant" ? [chatTokens["<|end|>"]] : [];
      return [chatTokens[`<|${role}|>`], ...encode(content), ...end];
    });
    ids.push(chatTokens["<|assistant|>"]);
    if (ids.length <= limit) return ids;
  }
  if (ids.length >= blockSize) {
    throw new BackendError(`That is ${ids.length} tokens, and the model sees ${blockSize} at once: shorten it.`);
  }
  return ids;
}
