// Keys, and users with everything that is stored of them.

import { file, get, post, remove } from "./console-api.js";
import { ask } from "./console-ask.js";
import { button, h, number, save, Table, when } from "./console-dom.js";
import { pages } from "./console-pages.js";
import { sessionPages } from "./console-sessions.js";
import { words } from "./console-words.js";
import { key } from "./visit.js";

const SCOPES = ["user", "service", "admin", "reader"];
const USERS_LIMIT = 50;

export function keysScreen({ mayAct }) {
  const columns = [
    { title: words.key, text: (row) => `${row.prefix}…` },
    { title: words.subject, text: (row) => row.subject },
    { title: words.scope, text: (row) => row.scope },
    { title: words.activeSessions, text: (row) => number(row.active_sessions) },
    { title: words.created, text: (row) => when(row.created_at) },
    { title: words.revoked, text: (row) => when(row.revoked_at), tone: (row) => (row.revoked_at ? "bad" : "plain") },
  ];
  if (mayAct) columns.push({ title: words.revoke, hidden: true, make: (row) => (row.revoked_at ? "" : revokeButton(row, () => refresh())) });
  const table = new Table(words.keysTab, columns, ({ id, revoked_at: at }) => `${id} ${at}`, words.noKeys);
  const refresh = async () => table.show((await get("keys", { limit: 100 })).data);
  return {
    element: h("div", {}, h("h2", {}, words.keysTab), mayAct ? newKey(() => refresh()) : null, table.element),
    refresh,
    every: 10_000,
  };
}

function revokeButton(row, done) {
  return button(words.revokeDots, async () => {
    const answer = await ask({ title: words.revokeTitle(`${row.prefix}…`), text: words.revokeText, yes: words.revoke });
    if (answer === null) return;
    await remove(`keys/${row.id}`);
    await done();
  });
}

function newKey(done) {
  const subject = h("input", { id: "subject", maxlength: "256", required: true, autocomplete: "off", spellcheck: "false" });
  // The first key shuts out whoever has none: it is for whoever makes it, and this tab goes on with it.
  const scopes = key.get() === null ? ["admin"] : SCOPES;
  const scope = h("select", { id: "scope" }, ...scopes.map((each) => h("option", { value: each }, each)));
  const told = h("p", { role: "status", class: "new-key" });
  const create = h("button", { class: "primary", type: "submit" }, words.createKey);
  const form = h("form", { class: "fields" }, h("label", { for: "subject" }, words.subject), subject, h("label", { for: "scope" }, words.scope), scope, create);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    create.disabled = true;
    try {
      const made = await post("keys", { subject: subject.value.trim(), scope: scope.value });
      told.replaceChildren(`${words.shownOnce} `, h("code", {}, made.key));
      subject.value = "";
      if (key.get() === null) key.set(made.key);
      scope.replaceChildren(...SCOPES.map((each) => h("option", { value: each }, each)));
      await done();
    } finally {
      create.disabled = false;
    }
  });
  return h("div", {}, form, told);
}

export function usersScreen({ mayAct }, name) {
  return name ? oneUser(mayAct, name) : allUsers();
}

function allUsers() {
  const columns = [
    { title: words.user, make: (row) => h("a", { href: `#/users/${encodeURIComponent(row.user)}` }, row.user) },
    { title: words.active, text: (row) => number(row.active) },
    { title: words.sessions, text: (row) => number(row.sessions) },
    { title: words.conversations, text: (row) => number(row.conversations) },
    { title: words.memories, text: (row) => number(row.memories) },
    { title: words.lastSeen, text: (row) => when(row.last_started_at) },
  ];
  const table = new Table(words.users, columns, ({ user }) => user, words.noUsers);
  const search = h("input", { id: "begins", type: "search", maxlength: "256", autocomplete: "off", spellcheck: "false" });
  const users = pages(table, USERS_LIMIT, (after) => get("users", { limit: USERS_LIMIT, after, begins_with: search.value.trim() }));
  search.addEventListener("change", () => users.reload());
  const fields = h("div", { class: "fields" }, h("label", { for: "begins" }, words.beginsWith), search);
  return { element: h("div", {}, h("h2", {}, words.users), fields, users.element), refresh: users.refresh, every: 30_000 };
}

/** Asks, and erases one memory. Returns whether it was erased. */
export async function forget({ id, content }) {
  if ((await ask({ title: words.forgetTitle, text: words.forgetText(content), yes: words.forget })) === null) return false;
  await remove(`memories/${id}`);
  return true;
}

function memoryTable(mayAct, changed) {
  const source = ({ source }) => (source ? h("a", { href: `#/session/${source.session_id}` }, `${source.session_id.slice(0, 13)}…`) : "–");
  const columns = [
    { title: words.memory, make: (row) => h("span", { dir: "auto" }, row.content) },
    { title: words.quote, make: (row) => h("q", { dir: "auto" }, row.quote) },
    { title: words.when, text: (row) => when(row.edited_at ?? row.said_at) },
    { title: words.session, make: source },
  ];
  const forgetButton = (row) => button(words.forgetDots, async () => (await forget(row)) && changed());
  if (mayAct) columns.push({ title: words.forget, hidden: true, make: forgetButton });
  return new Table(words.memories, columns, ({ id, edited_at: at }) => `${id} ${at}`, words.nothingRemembered);
}

function oneUser(mayAct, name) {
  const said = h("p", { role: "status" });
  const sessions = sessionPages(words.sessions, "sessions", { user_id: name });
  const showMemories = async () => memories.show((await get("memories", { user_id: name })).data.reverse());
  const memories = memoryTable(mayAct, showMemories);
  const refresh = () => Promise.all([sessions.refresh(), showMemories()]);
  const download = async () => save("user.ndjson", await file("users/export", { user_id: name }));
  const erase = async () => {
    const typed = await ask({ title: words.eraseTitle(name), text: words.eraseText, label: words.typeName(name), yes: words.erase, must: name });
    if (typed === null) return;
    const gone = await post("users/erase", { user: name, confirm: typed });
    said.textContent = words.erased(number(gone.sessions), number(gone.messages), number(gone.memories));
    await Promise.all([sessions.reload(), showMemories()]);
  };
  const actions = mayAct ? h("div", { class: "actions" }, button(words.exportUser, download), button(words.eraseDots, erase, "stop")) : null;
  return {
    element: h("div", {}, h("h2", {}, `${words.user} `, h("bdi", {}, name)), actions, said, h("h3", {}, words.memories), memories.element, h("h3", {}, words.sessions), sessions.element),
    refresh,
    every: 10_000,
  };
}
