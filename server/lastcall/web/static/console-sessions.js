// Lists of sessions, and the end of one by hand.

import { get, post } from "./console-api.js";
import { ask } from "./console-ask.js";
import { button, duration, h, now, Table, when } from "./console-dom.js";
import { pages } from "./console-pages.js";
import { words } from "./console-words.js";

const LIMIT = 50;

export const reasonText = (reason) => (reason ? (words.reasons[reason] ?? reason) : "–");

const age = (moment) => duration(Math.max(0, Math.round(now() - moment)));
const link = (row) => h("a", { href: `#/session/${row.id}` }, `${row.id.slice(0, 13)}…`);
const userLink = (row) => h("a", { href: `#/users/${encodeURIComponent(row.user)}` }, row.user);

/** Asks for a reason and closes the session. Returns whether it was closed now. */
export async function closeByHand(row) {
  const reason = await ask({
    title: words.closeTitle(row.user),
    text: words.closeText,
    label: words.closeReason,
    yes: words.closeSession,
  });
  if (reason === null) return false;
  const { closed } = await post(`sessions/${row.id}/close`, { reason: reason || null });
  return closed;
}

/** Those that are active now. changed: called once one was closed. */
export function activeTable(mayAct, changed) {
  const columns = [
    { title: words.session, make: link },
    { title: words.user, make: userLink },
    { title: words.since, text: (row) => age(row.started_at) },
    { title: words.lastEvent, text: (row) => words.ago(age(row.last_event_at)) },
    { title: words.server, text: (row) => row.server ?? "–" },
    { title: words.key, text: (row) => (row.key ? `${row.key}…` : "–") },
    { title: words.state, text: (row) => words.states[row.state], tone: (row) => (row.state === "live" ? "good" : "bad") },
  ];
  if (mayAct) {
    const close = (row) => button(words.closeDots, async () => (await closeByHand(row)) && changed());
    columns.push({ title: words.closeSession, hidden: true, make: close });
  }
  return new Table(words.activeSessions, columns, ({ id }) => id, words.noneActive);
}

/** Those that match, in `pages`. path, query: of the list. */
export function sessionPages(caption, path, query, more = []) {
  const columns = [
    { title: words.session, make: link },
    { title: words.user, make: userLink },
    { title: words.started, text: (row) => when(row.started_at) },
    { title: words.lasted, text: (row) => duration(row.seconds ?? now() - row.started_at) },
    { title: words.end, text: (row) => (row.end_reason ? reasonText(row.end_reason) : words.states[row.state]) },
    { title: words.memory, text: (row) => words.memoryStates[row.memory_status] },
    ...more,
  ];
  const table = new Table(caption, columns, ({ id }) => id, words.noSessions);
  return pages(table, LIMIT, (after) => get(path, { ...query, limit: LIMIT, after }));
}
