// What is kept between visits, and the address that names a conversation.

const ANONYMOUS = "anonymous";
const PATH = /^\/c\/(conv_[0-9a-f]{32})$/;
const STOPPED_MAX = 50;

/** A key, client secret or token; only for this tab. */
export const key = {
  get: () => sessionStorage.getItem("lastcall.key"),
  set: (value) => sessionStorage.setItem("lastcall.key", value),
  forget: () => sessionStorage.removeItem("lastcall.key"),
};

/** The name that the user has typed. */
export const typedName = {
  get: () => localStorage.getItem("lastcall.user") || ANONYMOUS,
  set: (name) => localStorage.setItem("lastcall.user", name),
  of: (text) => text.trim().normalize("NFC") || ANONYMOUS,
  shown: (name) => (name === ANONYMOUS ? "" : name),
};

/** The conversation of a user's last visit. */
export const lastConversation = {
  of: (user) => localStorage.getItem(`lastcall.conversation.${user}`),
  keep(user, id) {
    if (id) localStorage.setItem(`lastcall.conversation.${user}`, id);
    else localStorage.removeItem(`lastcall.conversation.${user}`);
  },
};

/** Answers that the user has stopped; others that are cut off were interrupted. */
export const stopped = {
  has: (id) => stoppedIds().includes(id),
  add: (id) => sessionStorage.setItem("lastcall.stopped", JSON.stringify([...stoppedIds(), id].slice(-STOPPED_MAX))),
};

function stoppedIds() {
  return JSON.parse(sessionStorage.getItem("lastcall.stopped") ?? "[]");
}

/** The conversation that the page's address names, or null. */
export function addressed() {
  return PATH.exec(location.pathname)?.[1] ?? null;
}

/** Has the address name a conversation, or none. added: as a further step of the browser's history. */
export function showAddress(id, { added = false } = {}) {
  const path = id ? `/c/${id}` : "/";
  if (path === location.pathname) return;
  if (added) history.pushState(null, "", path);
  else history.replaceState(null, "", path);
}
