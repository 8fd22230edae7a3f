// Signing in by a link or at the identity provider, and out. The cookie is the browser's: no script can read it.

import { $, confirmed, showNotice } from "./page.js";
import { words } from "./words.js";

const LINK = /^#(ek_[\w-]{1,200})$/;
const FAILED = /^#sign-in=(\w{1,20})$/;

export class SignIn {
  /** leave: called before who is signed in changes. enter: after that, also where it failed, with the user or null. */
  constructor({ leave, enter }) {
    this.leave = leave;
    this.enter = enter;
    $("sign-in").addEventListener("click", () => this.#atProvider());
    $("sign-out").addEventListener("click", () => this.#out());
    addEventListener("hashchange", () => location.hash && this.begin()); // a link that is opened in this tab
  }

  /** Does what the address says. Whether somebody signs in by a link: then `enter` is called. */
  begin() {
    const [, secret] = LINK.exec(location.hash) ?? [];
    const [, failure] = FAILED.exec(location.hash) ?? [];
    // Out of the address before anything else: it would be kept in the history, and shown to whoever looks.
    if (secret || failure) history.replaceState(history.state, "", location.pathname);
    if (failure) showNotice(words.signInFailed[failure] ?? words.signInFailed.refused);
    if (secret) this.#byLink(secret);
    else this.#look();
    return Boolean(secret);
  }

  async #byLink(secret) {
    const before = await this.#look();
    if (before?.user && !(await confirmed(words.signInInstead(before.user), words.signIn))) return this.enter(before.user);
    this.leave();
    const { status, body } = await ask("POST", "/sign-in", { secret });
    if (body) show(body);
    this.enter((body ?? before)?.user ?? null);
    if (!body) showNotice(words.signInFailed[status === 401 ? "link" : "busy"]);
  }

  async #atProvider() {
    const { body } = await ask("POST", "/sign-in/provider", { path: location.pathname });
    if (body) location.assign(body.url);
    else showNotice(words.signInFailed.away);
  }

  async #out() {
    this.leave();
    const { body } = await ask("DELETE", "/sign-in");
    if (body?.url) return location.assign(body.url);
    if (body) history.replaceState(null, "", "/");
    this.enter((await this.#look())?.user ?? null);
    if (!body) showNotice(words.couldNotDo);
  }

  async #look() {
    const { body } = await ask("GET", "/sign-in");
    if (body) show(body);
    return body;
  }
}

function show({ user, provider }) {
  $("sign-out").hidden = !user;
  $("sign-in").hidden = !provider;
  $("sign-in").textContent = provider ? words.signInAt(provider) : "";
}

// body: null for any answer but 200.
async function ask(method, path, body) {
  const headers = body && { "Content-Type": "application/json" };
  try {
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, body: answer.ok ? await answer.json() : null };
  } catch {
    return { status: 0, body: null };
  }
}
