// Whether the server can save what is said: asked while the page is connected and looked at.

const CHECK_MS = 4000;
const ANSWER_MS = 5000;

export class Readiness {
  #timer = null;
  #following = false;

  /** changed: called with true or false whenever that is known anew. */
  constructor(changed) {
    this.changed = changed;
    document.addEventListener("visibilitychange", () => this.#following && !document.hidden && this.check());
  }

  start() {
    this.#following = true;
    this.check();
  }

  stop() {
    this.#following = false;
    clearTimeout(this.#timer);
  }

  async check() {
    clearTimeout(this.#timer);
    const ready = await isReady();
    if (!this.#following) return;
    if (ready !== null) this.changed(ready);
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.check(), CHECK_MS);
  }
}

// null: not known, such as where requests are limited. The connection itself tells that the server is away.
async function isReady() {
  try {
    const { status } = await fetch("/readyz", { signal: AbortSignal.timeout(ANSWER_MS) });
    return status === 200 ? true : status === 503 ? false : null;
  } catch {
    return null;
  }
}
