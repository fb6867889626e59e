// The texts that began with one prompt, as a tree. Nothing here touches the page.

/**
 * @typedef {object} Branch
 * @property {number} id Its index in `branches`.
 * @property {number | null} parent The branch that it left; null for the first one, which begins with the prompt.
 * @property {number} start The number of tokens that it shares with its parent.
 * @property {BranchToken[]} tokens Its own tokens, from `start` on.
 *
 * @typedef {import("./backend.js").Token & {probability?: number, rank?: number}} BranchToken A prompt's tokens have no
 *   probability.
 */

export class BranchTree {
  /** @type {Branch[]} */
  branches;

  /** @param {BranchToken[]} prompt */
  constructor(prompt) {
    this.branches = [{ id: 0, parent: null, start: 0, tokens: [...prompt] }];
  }

  /**
   * Return all tokens of a branch, those that it shares with its parent included.
   * @param {number} id
   * @returns {BranchToken[]}
   */
  path(id) {
    const { parent, start, tokens } = this.branches[id];
    return parent === null ? tokens : [...this.path(parent).slice(0, start), ...tokens];
  }

  /**
   * Return the number of tokens of `path`.
   * @param {number} id
   * @returns {number}
   */
  length(id) {
    return this.branches[id].start + this.branches[id].tokens.length;
  }

  /**
   * Add tokens at the end of a branch.
   * @param {number} id
   * @param {BranchToken[]} tokens
   */
  append(id, tokens) {
    this.branches[id].tokens.push(...tokens);
  }

  /**
   * Put a token at a place of a branch. At its end the branch grows; elsewhere a new branch begins, unless one with
   * this token is there already.
   * @param {number} id
   * @param {number} place From 0 to the branch's length.
   * @param {BranchToken} token
   * @returns {{id: number, isNew: boolean}} The branch with this token, and whether the token is new.
   */
  choose(id, place, token) {
    if (place === this.length(id)) {
      this.append(id, [token]);
      return { id, isNew: true };
    }
    if (this.path(id)[place].id === token.id) return { id, isNew: false };
    let owner = this.branches[id]; // the branch that has other tokens than its parent around this place
    while (owner.parent !== null && place <= owner.start) owner = this.branches[owner.parent];
    if (owner.tokens[place - owner.start].id === token.id) return { id: owner.id, isNew: false };
    const sibling = this.children(owner.id).find((each) => each.start === place && each.tokens[0].id === token.id);
    if (sibling) return { id: sibling.id, isNew: false };
    const branch = { id: this.branches.length, parent: owner.id, start: place, tokens: [token] };
    this.branches.push(branch);
    return { id: branch.id, isNew: true };
  }

  /**
   * Return the branches that left a branch, in the order of their places.
   * @param {number} id
   * @returns {Branch[]}
   */
  children(id) {
    return this.branches.filter((each) => each.parent === id).sort((a, b) => a.start - b.start);
  }

  /**
   * List all branches, each before its children.
   * @returns {{branch: Branch, level: number}[]} The first branch has level 1.
   */
  list() {
    /** @type {(branch: Branch, level: number) => {branch: Branch, level: number}[]} */
    const walk = (branch, level) => [
      { branch, level },
      ...this.children(branch.id).flatMap((child) => walk(child, level + 1)),
    ];
    return walk(this.branches[0], 1);
  }
}
