// Read server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) from the body of an answer.
// EventSource cannot send a POST request or a header.

/**
 * Yield the data of each event.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @returns {AsyncGenerator<string>}
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = /** @type {string} */ (events.pop());
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length > 0) yield lines.map((line) => line.slice("data:".length).trimStart()).join("\n");
      }
    }
  } finally {
    await reader.cancel().catch(() => {}); // also when the reader of the events stops early
  }
}
