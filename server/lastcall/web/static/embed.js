// The page in a frame of another site. Cookies of others do not reach it there: that site's page sends a client secret.

const ALLOWED = document.documentElement.dataset.embed; // origins, by the server; on the page itself there are none
const SECRET = /^[\w.-]{1,8192}$/;
const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 60_000;

export const embedded = ALLOWED !== undefined;

/** The page around this one: it is asked for secrets, and nobody else is believed. */
export class Surroundings {
  #asked = 0; // times in a row, in vain
  #timer = null;

  /** take: called with each secret. */
  constructor(take) {
    const origins = ALLOWED.split(" ");
    addEventListener("message", ({ source, origin, data }) => {
      if (source !== parent || !origins.includes(origin)) return;
      if (data?.type === "lastcall.secret" && SECRET.test(data.secret)) take(data.secret);
    });
  }

  /** Later each time: a page that sends one which is refused again and again would keep both busy. */
  ask() {
    const delay = this.#asked ? Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.#asked - 1)) : 0;
    this.#asked += 1;
    clearTimeout(this.#timer);
    // Whoever is around this page may hear it: it says nothing, and only allowed sites may be there.
    this.#timer = setTimeout(() => parent.postMessage({ type: "lastcall.secret_wanted" }, "*"), delay);
  }

  /** The last secret was good. */
  accepted() {
    this.#asked = 0;
    clearTimeout(this.#timer);
  }
}
