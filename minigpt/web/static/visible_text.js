// Show characters that have no shape of their own, and those that would change how the page's other text is laid out.
// Nothing here touches the page.

const LINE_END = "↵";
const TAB = "⇥";
const SPACE = "␣";

/**
 * Return a text of a model as it is shown inside a longer text: spaces stay, a line end has a mark before it, and
 * invisible characters are replaced by what names them.
 * @param {string} text
 * @returns {string}
 */
export function showInText(text) {
  return Array.from(text, (character) => {
    if (character === "\n") return `${LINE_END}\n`;
    if (character === "\t") return `${TAB}\t`;
    return /\p{Space_Separator}/u.test(character) ? character : showInvisible(character);
  }).join("");
}

/**
 * Return a text of a model as a label on one line, such as a bar's: spaces and line ends have marks, too.
 * @param {string} text
 * @returns {string}
 */
export function showAsLabel(text) {
  if (text === "") return "(empty)";
  const label = Array.from(text, (character) => {
    if (character === "\n") return LINE_END;
    if (character === "\t") return TAB;
    if (character === " ") return SPACE;
    return showInvisible(character);
  }).join("");
  return /^\p{Mark}/u.test(label) ? `◌${label}` : label; // an accent alone would stand on the character before it
}

/**
 * Return a label in quotation marks, for a sentence.
 * @param {string} text
 * @returns {string}
 */
export function quote(text) {
  return `“${showAsLabel(text)}”`;
}

/** @param {string} character One code point. */
function showInvisible(character) {
  // Separators; control and format characters, bidirectional marks and zero-width characters among them; surrogates;
  // characters that are unassigned or for private use; letters that are drawn as nothing.
  const isInvisible = /^(?! )[\p{Separator}\p{Other}\p{Default_Ignorable_Code_Point}]$/u.test(character);
  if (!isInvisible) return character;
  const code = /** @type {number} */ (character.codePointAt(0));
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}
