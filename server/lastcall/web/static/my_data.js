// Everything the user said and what is remembered of it, as one file.

const PAGE = 100;
const PAGES_MAX = 100_000; // of one list
const TRIES = 5;
const PAUSE_MS = 1000; // before another try, where there were too many requests

/** The file's text in pieces: memories and conversations with their items, as JSON. Throws where it cannot be had. */
export async function myData(api, user) {
  const { data: memories } = await asked(api, "/v1/memories");
  const head = { user, exported_at: new Date().toISOString(), memories };
  const pieces = [`${JSON.stringify(head, null, 1).slice(0, -2)},\n "conversations": [`];
  for (const [index, conversation] of (await all(api, "/v1/conversations")).entries()) {
    const items = await all(api, `/v1/conversations/${conversation.id}/items`, { order: "asc", times: true });
    pieces.push(`${index ? "," : ""}\n${JSON.stringify({ ...conversation, items }, null, 1)}`);
  }
  return [...pieces, "\n ]\n}\n"];
}

/** Has the browser save a text as a file. */
export function saveAsFile(pieces, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(pieces, { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 0);
}

async function all(api, path, query = {}) {
  const found = [];
  for (let page = 0, after = null; page < PAGES_MAX; page += 1) {
    const { data, times, has_more: more, last_id: last } = await asked(api, path, { ...query, limit: PAGE, ...(after && { after }) });
    found.push(...data.map((each, index) => (times ? { ...each, stored_at: times[index] } : each)));
    if (!more) return found;
    after = last;
  }
  throw new Error("too many pages");
}

async function asked(api, path, query) {
  for (let tries = 1; ; tries += 1) {
    const { status, body } = await api.ask("GET", path, { query });
    if (status === 200) return body;
    if (status !== 429 || tries === TRIES) throw new Error(`${path}: ${status}`);
    await new Promise((done) => setTimeout(done, PAUSE_MS));
  }
}
