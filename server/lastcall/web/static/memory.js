// The panel of what the server remembers about the user: where it comes from, to correct and to forget.

import { conversationLink, iconButton, newElement } from "./elements.js";
import { fitHeight } from "./page.js";
import { day, words } from "./words.js";

// A session's memory is made after the session has ended, in the background: look again a few times.
const LOOK_AFTER_MS = [0, 1000, 3000, 8000];
const CONTENT_CHARS_MAX = 1000;
const PATH = "/v1/memories";

/** Events: `open` {id}: the conversation that a fact comes from. `said` {text}: to be read out. `failed`. */
export class MemoryPanel extends EventTarget {
  #timers = [];
  #asked = 0;
  #facts; // undefined: they are not known yet; null: they could not be had
  #editing = null; // the id of the fact that is being changed

  /** elements: list, empty, count, refresh (a button). confirm: asks the user whether something is to be forgotten. */
  constructor(elements, api, confirm) {
    super();
    Object.assign(this, elements, { api, confirm });
    this.refresh.addEventListener("click", () => this.follow());
  }

  /** Shows the user's memories, now and as they come in during the next seconds. */
  follow() {
    this.#timers.forEach(clearTimeout);
    this.#timers = LOOK_AFTER_MS.map((delay) => setTimeout(() => this.#look(), delay));
  }

  clear() {
    this.#asked += 1;
    this.#editing = null;
    this.#show();
  }

  async #look() {
    const asked = ++this.#asked; // an answer that was overtaken is for another user or out of date
    const { status, body } = await this.api.ask("GET", PATH);
    // Nothing is taken from under the hands of a user who is writing.
    if (asked === this.#asked && !this.#editing) this.#show(status === 200 ? body.data : null);
  }

  #show(facts) {
    const isSame = JSON.stringify(facts) === JSON.stringify(this.#facts);
    this.#facts = facts;
    if (!isSame) this.#draw();
    this.empty.textContent = facts ? words.memoryEmpty : words.memoryAway;
    this.empty.hidden = facts === undefined || facts?.length > 0;
    this.count.textContent = String(facts?.length ?? "");
    this.count.hidden = !facts?.length;
  }

  #draw() {
    const { memory, action } = focused(this.list);
    this.list.replaceChildren(...(this.#facts ?? []).map((each) => this.#entry(each)));
    if (memory) this.#focus(memory, action); // whoever uses the keyboard stays where they were
  }

  #entry(fact) {
    const entry = document.createElement("li");
    entry.dataset.memory = fact.id;
    const edit = iconButton("✎", words.correct(fact.content), () => this.#edit(fact));
    const forget = iconButton("✕", words.forget(fact.content), () => this.#forget(fact));
    edit.dataset.action = "edit";
    forget.dataset.action = "forget";
    const head = newElement("div", "head");
    head.append(newElement("span", "kind", words.kinds[fact.kind] ?? fact.kind), edit, forget);
    entry.append(head, newElement("p", "fact", fact.content));
    if (fact.quote && fact.quote !== fact.content) entry.append(newElement("q", "quote", fact.quote));
    entry.append(this.#source(fact));
    return entry;
  }

  // When it was said, which leads to where it was said.
  #source({ source, said_at: said, edited_at: edited }) {
    const foot = newElement("p", "time");
    const when = edited ? words.correctedOn(day(edited)) : words.saidOn(day(said));
    if (source) {
      const id = source.conversation_id;
      const link = conversationLink(id, () => this.#tell("open", { id }));
      link.textContent = when;
      link.title = words.showSource;
      foot.append(link);
    } else foot.textContent = when;
    return foot;
  }

  #edit(fact) {
    if (this.#editing) this.#draw(); // one at a time
    this.#editing = fact.id;
    const form = document.createElement("form");
    const field = document.createElement("textarea");
    field.value = fact.content;
    field.rows = 1;
    field.maxLength = CONTENT_CHARS_MAX;
    field.setAttribute("aria-label", words.whatIsRight);
    const cancel = newElement("button", "small", words.cancel);
    cancel.type = "button";
    cancel.addEventListener("click", () => this.#close());
    const choices = newElement("div", "choices");
    choices.append(cancel, newElement("button", "small", words.save));
    form.append(field, choices);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(fact, field.value.trim());
    });
    field.addEventListener("input", () => fitHeight(field));
    field.addEventListener("keydown", (event) => onKey(event, form, () => this.#close()));
    this.#element(fact.id).replaceChildren(form);
    fitHeight(field);
    field.select();
  }

  async #close() {
    const id = this.#editing;
    this.#editing = null;
    this.#draw();
    this.#focus(id, "edit");
    await this.#look();
  }

  async #save({ id, content: before }, content) {
    if (content && content !== before) {
      const { status } = await this.api.ask("PATCH", `${PATH}/${id}`, { body: { content } });
      if (status !== 200 && status !== 404) return this.#tell("failed"); // what was written stays there
      if (status === 200) this.#tell("said", { text: words.corrected });
    }
    if (this.#editing === id) await this.#close();
  }

  async #forget({ id, content }) {
    if (!(await this.confirm(words.reallyForget(content), words.forgetIt))) return;
    const { status } = await this.api.ask("DELETE", `${PATH}/${id}`);
    if (status !== 200 && status !== 404) return this.#tell("failed");
    const entry = this.#element(id);
    const next = (entry?.nextElementSibling ?? entry?.previousElementSibling)?.dataset.memory;
    this.#tell("said", { text: words.forgotten });
    await this.#look();
    this.#focus(next, "forget");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #element(id) {
    return this.list.querySelector(`[data-memory="${id}"]`);
  }

  #focus(id, action) {
    (this.#element(id)?.querySelector(`[data-action="${action}"]`) ?? this.refresh).focus();
  }
}

// Enter saves, as with a message; Escape leaves everything as it was.
function onKey(event, form, cancel) {
  if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.key === "Enter") form.requestSubmit();
  else cancel();
}

// Which fact and which of its buttons has the focus.
function focused(list) {
  const element = list.contains(document.activeElement) ? document.activeElement : null;
  return { memory: element?.closest("[data-memory]")?.dataset.memory, action: element?.dataset.action };
}
