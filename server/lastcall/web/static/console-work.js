// Servers; memory that waits or has failed; who did what.

import { file, get, post } from "./console-api.js";
import { button, duration, h, number, save, Table, when } from "./console-dom.js";
import { pages } from "./console-pages.js";
import { sessionPages } from "./console-sessions.js";
import { words } from "./console-words.js";

const AUDIT_LIMIT = 50;
const SESSION_ID = /^sess_[0-9a-f]{32}$/;

const dash = (value) => (value === null ? "–" : number(value));

export function serversScreen({ truth }) {
  const columns = [
    { title: words.server, text: (row) => row.name },
    { title: words.state, text: (row) => words.serverStates[row.state], tone: (row) => ({ runs: "good", stopped: "plain", reaped: "bad" })[row.state] },
    { title: words.version, text: (row) => row.version },
    { title: words.lease, text: (row) => (row.state === "runs" ? words.ofLease(duration(Math.max(0, row.heartbeat_age)), duration(row.lease_seconds)) : "–") },
    { title: words.counted, text: (row) => (row.state === "runs" && row.counted_age !== null ? words.ago(duration(Math.max(0, row.counted_age))) : "–") },
    { title: words.rows, text: (row) => (row.state === "runs" ? dash(row.rows) : "–") },
    { title: words.sockets, text: (row) => (row.state === "runs" ? dash(row.sockets) : "–") },
    { title: words.started, text: (row) => when(row.started_at) },
    { title: words.ended, text: (row) => when(row.ended_at) },
  ];
  const table = new Table(words.servers, columns, ({ id }) => id, words.noServer);
  return {
    element: h("div", {}, h("h2", {}, words.servers), table.element),
    refresh: async () => table.show(truth()?.servers ?? []),
    every: 2000,
  };
}

export function memoryScreen({ mayAct }) {
  const said = h("p", { role: "status" });
  const retry = (body) => async () => {
    const { sessions } = await post("memory/retry", body);
    said.textContent = words.retried(number(sessions));
    await failed.reload();
    await pending.reload();
  };
  const tried = [
    { title: words.tries, text: (row) => number(row.memory_attempts) },
    { title: words.due, text: (row) => when(row.memory_due_at) },
    { title: words.error, text: (row) => row.memory_error ?? "–" },
  ];
  const again = mayAct ? [{ title: words.retry, hidden: true, make: (row) => button(words.retry, retry({ session_id: row.id })) }] : [];
  const failed = sessionPages(words.memoryFailed, "memory", { status: "failed" }, [...tried, ...again]);
  const pending = sessionPages(words.memoryPending, "memory", { status: "pending" }, tried);
  const refresh = async () => {
    await failed.refresh();
    await pending.refresh();
  };
  const retryAll = mayAct ? h("div", { class: "actions" }, button(words.retryAll, retry({}))) : null;
  return {
    element: h("div", {}, h("h2", {}, words.memoryFailed), retryAll, said, failed.element, h("h2", {}, words.memoryPending), pending.element),
    refresh,
    every: 5000,
  };
}

// Of a session, a link: the log has its id as the database writes it.
function targetOf({ action, target }) {
  const id = `sess_${target.replaceAll("-", "")}`;
  const isSession = action === "session.close" || (action === "memory.retry" && SESSION_ID.test(id));
  return isSession ? h("a", { href: `#/session/${id}` }, id) : target;
}

export function auditScreen() {
  const columns = [
    { title: words.when, text: (row) => when(row.at) },
    { title: words.who, text: (row) => `${row.actor} (${words.via[row.via]})` },
    { title: words.action, text: (row) => words.actions[row.action] ?? row.action },
    { title: words.target, make: targetOf },
    { title: words.details, text: (row) => Object.entries(row.details).filter(([, value]) => value !== null).map((pair) => pair.join(": ")).join(", ") || "–" },
  ];
  const table = new Table(words.audit, columns, ({ id }) => id, words.noActs);
  const acts = pages(table, AUDIT_LIMIT, (before) => get("audit", { limit: AUDIT_LIMIT, before }));
  const csv = button(words.exportCsv, async () => save("audit.csv", await file("audit.csv")));
  return {
    element: h("div", {}, h("h2", {}, words.audit), h("div", { class: "actions" }, csv), acts.element),
    refresh: acts.refresh,
    every: 5000,
  };
}
