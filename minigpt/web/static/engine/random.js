// PyTorch's random numbers: the Mersenne Twister (Matsumoto and Nishimura 1998), so that a seed gives the same text here
// as in `minigpt sample`.

const SIZE = 624; // numbers of the state
const MIDDLE = 397;

export class RandomNumbers {
  #state = new Uint32Array(SIZE);
  #next = SIZE;

  /** @param {number} seed A whole number at least 0. Its last 32 bits count, as in PyTorch. */
  constructor(seed) {
    this.#state[0] = seed % 2 ** 32;
    for (let i = 1; i < SIZE; i++) {
      const previous = this.#state[i - 1] ^ (this.#state[i - 1] >>> 30);
      this.#state[i] = Math.imul(1812433253, previous) + i;
    }
  }

  /** Return a random number that is at least 0 and below 1, with 53 random bits. */
  uniform() {
    const high = this.#draw() % 2 ** 21; // the last 53 of 64 bits
    return (high * 2 ** 32 + this.#draw()) / 2 ** 53;
  }

  /** Return 32 random bits. */
  #draw() {
    if (this.#next === SIZE) this.#refresh();
    let y = this.#state[this.#next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #refresh() {
    const s = this.#state;
    for (let i = 0; i < SIZE; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % SIZE] & 0x7fffffff);
      s[i] = s[(i + MIDDLE) % SIZE] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}
