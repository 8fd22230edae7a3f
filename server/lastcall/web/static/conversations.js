// The list of the user's conversations: search, open, rename, delete.

import { conversationLink, iconButton, newElement } from "./elements.js";
import { moment, words } from "./words.js";

const PAGE = 50;
const SEARCH_AFTER_MS = 200; // without another key
const TITLE_CHARS_MAX = 200;
const PATH = "/v1/conversations";

/** Events: `open` {id}, `deleting` {id}, `failed`, `title` {title}: of the current conversation. */
export class ConversationList extends EventTarget {
  #asked = 0;
  #last = null; // the id behind which more follow
  #timer = null;
  #current = null;

  /** elements: panel, list, empty, search, more (a button). confirm: asks the user whether something is to be deleted. */
  constructor(elements, api, confirm) {
    super();
    Object.assign(this, elements, { api, confirm });
    this.search.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), SEARCH_AFTER_MS);
    });
    this.more.addEventListener("click", () => this.#load(this.#last));
  }

  /** Marks the conversation that is shown. */
  set current(id) {
    this.#current = id;
    for (const link of this.list.querySelectorAll("a")) mark(link, id);
    this.#tellTitle();
  }

  clear() {
    this.#asked += 1;
    this.search.value = "";
    this.list.replaceChildren();
    this.empty.hidden = this.more.hidden = true;
  }

  refresh() {
    return this.#load(null);
  }

  async #load(after) {
    const asked = ++this.#asked; // an answer that was overtaken is for another user or out of date
    const search = this.search.value.trim().slice(0, 200);
    const { status, body } = await this.api.ask("GET", PATH, {
      query: { limit: PAGE, ...(after && { after }), ...(search && { search }) },
    });
    if (asked !== this.#asked) return;
    this.panel.hidden = status === 403; // a secret for one conversation only
    if (status !== 200) return;
    if (!after) this.list.replaceChildren();
    this.list.append(...body.data.filter(({ title }) => title).map((each) => this.#entry(each)));
    this.#last = body.last_id;
    this.more.hidden = !body.has_more;
    this.empty.textContent = search ? words.noneFound : words.noConversations;
    this.empty.hidden = this.list.childElementCount > 0;
    this.#tellTitle();
  }

  #tellTitle() {
    const title = this.list.querySelector('a[aria-current="page"] .title')?.textContent;
    this.dispatchEvent(new CustomEvent("title", { detail: { title } }));
  }

  #entry({ id, title, last_active_at: active }) {
    const entry = document.createElement("li");
    const link = conversationLink(id, () => this.dispatchEvent(new CustomEvent("open", { detail: { id } })));
    link.dataset.conversation = id;
    mark(link, this.#current);
    link.append(newElement("span", "title", title), newElement("span", "time", moment(active)));
    const rename = iconButton("✎", words.rename(title), () => this.#edit(entry, id, title));
    const remove = iconButton("✕", words.remove(title), () => this.#delete(id, title));
    entry.append(link, rename, remove);
    return entry;
  }

  #edit(entry, id, title) {
    const form = document.createElement("form");
    const field = document.createElement("input");
    field.value = title;
    field.maxLength = TITLE_CHARS_MAX;
    field.setAttribute("aria-label", words.title);
    const save = newElement("button", "small", words.save);
    form.append(field, save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#rename(id, field.value.trim());
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.refresh();
    });
    entry.replaceChildren(form);
    field.select();
  }

  // Without a title, it is called by its first words again.
  async #rename(id, title) {
    const { status } = await this.api.ask("POST", `${PATH}/${id}`, { body: { title: title || null } });
    if (status !== 200) this.dispatchEvent(new Event("failed"));
    await this.refresh();
    this.list.querySelector(`[data-conversation="${id}"]`)?.focus();
  }

  async #delete(id, title) {
    if (!(await this.confirm(words.reallyDelete(title)))) return;
    this.dispatchEvent(new CustomEvent("deleting", { detail: { id } }));
    const { status } = await this.api.ask("DELETE", `${PATH}/${id}`);
    if (status !== 200 && status !== 404) this.dispatchEvent(new Event("failed"));
    await this.refresh();
  }
}

function mark(link, current) {
  if (link.dataset.conversation === current) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}
