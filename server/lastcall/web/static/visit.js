// What is kept between visits, and the address that names a conversation.

import { embedded } from "./embed.js";
import { kept, keptInTab } from "./storage.js";

const ANONYMOUS = "anonymous";
const PATH = /^\/c\/(conv_[0-9a-f]{32})$/;
const STOPPED_MAX = 50;

/** A key, client secret or token; only for this tab. */
export const key = {
  get: () => keptInTab.getItem("lastcall.key"),
  set: (value) => keptInTab.setItem("lastcall.key", value),
  forget: () => keptInTab.removeItem("lastcall.key"),
};

/** The name that the user has typed. */
export const typedName = {
  get: () => kept.getItem("lastcall.user") || ANONYMOUS,
  set: (name) => kept.setItem("lastcall.user", name),
  of: (text) => text.trim().normalize("NFC") || ANONYMOUS,
  shown: (name) => (name === ANONYMOUS ? "" : name),
};

/** The conversation of a user's last visit. */
export const lastConversation = {
  of: (user) => kept.getItem(`lastcall.conversation.${user}`),
  keep(user, id) {
    if (id) kept.setItem(`lastcall.conversation.${user}`, id);
    else kept.removeItem(`lastcall.conversation.${user}`);
  },
};

/** Answers that the user has stopped; others that are cut off were interrupted. */
export const stopped = {
  has: (id) => stoppedIds().includes(id),
  add: (id) => keptInTab.setItem("lastcall.stopped", JSON.stringify([...stoppedIds(), id].slice(-STOPPED_MAX))),
};

function stoppedIds() {
  return JSON.parse(keptInTab.getItem("lastcall.stopped") ?? "[]");
}

/** The conversation that the page's address names, or null. */
export function addressed() {
  return PATH.exec(location.pathname)?.[1] ?? null;
}

/** Has the address name a conversation, or none. added: as a further step of the browser's history. */
export function showAddress(id, { added = false } = {}) {
  const path = id ? `/c/${id}` : "/";
  if (embedded || path === location.pathname) return; // a frame has one address
  if (added) history.pushState(null, "", path);
  else history.replaceState(null, "", path);
}
