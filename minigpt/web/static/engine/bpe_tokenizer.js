// Byte-level BPE, as minigpt/tokenizers/bpe_basic.py explains it.

// How a text is cut into pieces: the patterns of minigpt/tokenizers/byte_level.py. JavaScript's \s is another set of
// characters than Python's, which is the property White_Space. "ſ" is an s without regard to case.
const PATTERNS = {
  gpt2: /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
  gpt4: /'(?:[sdmtSDMTſ]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}+$|\p{White_Space}*[\r\n]|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}/gu,
};

export class BPETokenizer {
  #pattern;
  /** @type {Uint8Array[]} */
  #bytes;
  #byteIds;
  /** @type {Map<string, {rank: number, id: number}>} By the ids of the pair, with a comma between them. */
  #merges = new Map();
  #cache = new Map();

  /**
   * @param {object} vocabulary
   * @param {"gpt2" | "gpt4"} vocabulary.pattern
   * @param {string[]} vocabulary.tokens The bytes of each token, by id, in base64.
   * @param {number[]} vocabulary.byte_ids The id of each byte.
   * @param {[number, number, number][]} vocabulary.merges The ids of a pair and of their merge, in the order learned.
   */
  constructor({ pattern, tokens, byte_ids, merges }) {
    this.#pattern = PATTERNS[pattern];
    this.#bytes = tokens.map((token) => Uint8Array.from(atob(token), (character) => character.charCodeAt(0)));
    this.#byteIds = byte_ids;
    merges.forEach(([first, second, id], rank) => {
      const pair = `${first},${second}`;
      if (!this.#merges.has(pair)) this.#merges.set(pair, { rank, id });
    });
  }

  /**
   * @param {string} text
   * @returns {number[]}
   */
  encode(text) {
    return (text.match(this.#pattern) ?? []).flatMap((piece) => this.#encodePiece(piece));
  }

  /**
   * Return the text of a token, with U+FFFD for a part of a character.
   * @param {number} id
   * @returns {string}
   */
  text(id) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.#bytes[id]);
  }

  /**
   * @param {string} piece
   * @returns {number[]}
   */
  #encodePiece(piece) {
    const known = this.#cache.get(piece);
    if (known) return known;
    const ids = Array.from(new TextEncoder().encode(piece), (byte) => this.#byteIds[byte]);
    while (this.#mergeFirst(ids));
    this.#cache.set(piece, ids);
    return ids;
  }

  /**
   * Do the merge that was learned first, everywhere in the piece. Return false if there is none.
   * @param {number[]} ids
   */
  #mergeFirst(ids) {
    let best = null;
    for (let i = 0; i + 1 < ids.length; i++) {
      const merge = this.#merges.get(`${ids[i]},${ids[i + 1]}`);
      if (merge && (!best || merge.rank < best.rank)) best = { ...merge, first: ids[i], second: ids[i + 1] };
    }
    if (!best) return false;
    for (let i = 0; i + 1 < ids.length; i++) {
      if (ids[i] === best.first && ids[i + 1] === best.second) ids.splice(i, 2, best.id);
    }
    return true;
  }
}
