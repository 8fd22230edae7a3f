// The panel of what the server remembers about the user.

import { words } from "./words.js";

// A session's memory is made after the session has ended, in the background: look again a few times.
const LOOK_AFTER_MS = [0, 1000, 3000, 8000];

export class MemoryPanel {
  #timers = [];
  #asked = 0;

  constructor(list, empty, count, keyOf) {
    this.list = list;
    this.empty = empty;
    this.count = count;
    this.keyOf = keyOf;
  }

  /** Shows the user's memories, now and as they come in during the next seconds. */
  follow(user) {
    this.#timers.forEach(clearTimeout);
    this.#timers = LOOK_AFTER_MS.map((delay) => setTimeout(() => this.#look(user), delay));
  }

  clear() {
    this.#asked += 1;
    this.#show([]);
  }

  async #look(user) {
    const asked = ++this.#asked; // an answer that was overtaken is for another user or out of date
    const facts = await fetchMemories(user, this.keyOf());
    if (asked === this.#asked) this.#show(facts);
  }

  #show(facts) {
    this.list.replaceChildren(...(facts ?? []).map(newFact));
    this.count.textContent = String(facts?.length ?? "");
    this.count.hidden = !facts?.length;
    this.empty.hidden = Boolean(facts?.length);
    this.empty.textContent = facts ? words.memoryEmpty : words.memoryAway;
  }
}

async function fetchMemories(user, key) {
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const answer = await fetch(`/v1/memories?${new URLSearchParams({ user })}`, { headers });
    return answer.ok ? (await answer.json()).data : null;
  } catch {
    return null; // the connection's state already tells that the server is away
  }
}

function newFact({ kind, content }) {
  const fact = document.createElement("li");
  const label = document.createElement("span");
  label.className = "kind";
  label.textContent = kind;
  fact.append(label, content);
  return fact;
}
