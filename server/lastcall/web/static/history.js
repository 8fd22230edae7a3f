// Older items of the conversation, a page at a time, and when the replayed ones were stored.

import { $ } from "./page.js";

const PAGE = 50;
export const REPLAYED = 100; // items that come over the connection; of as many a page says the times

export class OlderItems {
  #more = false;
  #loading = null; // the conversation whose page is on its way

  constructor(transcript, api, conversationOf) {
    this.transcript = transcript;
    this.api = api;
    this.conversationOf = conversationOf;
    transcript.addEventListener("beginning", () => this.load());
  }

  /** Whether there is anything before the oldest item that is shown. */
  get more() {
    return this.#more;
  }

  /** more: whether there is anything before the oldest item that is shown. */
  reset(more) {
    this.#more = more;
    this.#loading = null;
    $("older").hidden = true;
  }

  async date() {
    const body = await this.#page({ limit: REPLAYED });
    for (const [index, { id }] of (body?.data ?? []).entries()) this.transcript.date(id, body.times[index]);
  }

  async load() {
    const conversation = this.conversationOf();
    if (!this.#more || this.#loading === conversation || this.transcript.full) return;
    this.#loading = conversation;
    $("older").hidden = false;
    const body = await this.#page({ limit: PAGE, after: this.transcript.oldest });
    if (this.#loading !== conversation) return; // the user went elsewhere
    this.reset(body ? body.has_more : true);
    if (!body) return; // tried again when the reader scrolls
    this.transcript.showOlder(body.data, body.times);
    if (this.transcript.nearBeginning) this.load();
  }

  async #page(query) {
    const path = `/v1/conversations/${this.conversationOf()}/items`;
    const { status, body } = await this.api.ask("GET", path, { query: { ...query, times: true } });
    return status === 200 ? body : null;
  }
}
