// The page in a frame of another site. Cookies of others do not reach it there: that site's page sends a client secret.

const ALLOWED = document.documentElement.dataset.embed; // origins, by the server; on the page itself there are none
const SECRET = /^[\w.-]{1,8192}$/;
const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 60_000;

export const embedded = ALLOWED !== undefined;

/** The page around this one: it is asked for secrets, and nobody else is believed. */
export class Surroundings {
  #delay = 0;
  #timer = null;

  /** take: called with each secret. */
  constructor(take) {
    const origins = ALLOWED.split(" ");
    addEventListener("message", ({ source, origin, data }) => {
      if (source !== parent || !origins.includes(origin) || data?.type !== "lastcall.secret") return;
      const { secret } = data;
      if (typeof secret !== "string" || !SECRET.test(secret)) return;
      clearTimeout(this.#timer);
      take(secret);
    });
  }

  /** Until there is an answer, since nobody may listen yet; later each time, since each secret may be refused. */
  ask() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#delay = Math.min(LONGEST_DELAY_MS, this.#delay * 2 || FIRST_DELAY_MS);
      // Whoever is around this page may hear it: it says nothing, and only allowed sites may be there.
      parent.postMessage({ type: "lastcall.secret_wanted" }, "*");
      this.ask();
    }, this.#delay);
  }

  /** The last secret was good. */
  accepted() {
    this.#delay = 0;
    clearTimeout(this.#timer);
  }
}
