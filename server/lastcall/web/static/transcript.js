// The conversation as a list of elements, one for each message. What the agent says is Markdown; all else is text.

import { newMessage } from "./message.js";
import { showMarkdown } from "./markdown.js";
import { stopped } from "./visit.js";
import { words } from "./words.js";

const NEAR_THE_END_PX = 80;
const NEAR_THE_BEGINNING_PX = 300;
const SHOWN_ITEMS_MAX = 5000;
const DRAW_MS_MIN = 30; // between two drawings of an answer that grows
const DRAW_SHARE = 5; // times as long as a drawing takes, nothing is drawn

/** Events: `edit` {id}: the user wants to change a message. `beginning`: the reader comes near the oldest message. */
export class Transcript extends EventTarget {
  #elements = new Map(); // item id -> element
  #texts = new Map(); // item id -> what was said, as it was sent
  #order = []; // ids of all items, calls of tools too, oldest first
  #following = true; // the newest text, unless the reader has scrolled up
  #due = new Map(); // item id -> timer of the next drawing
  #pause = DRAW_MS_MIN;

  constructor(list, scroll, hint) {
    super();
    this.list = list;
    this.scroll = scroll;
    this.hint = hint;
    scroll.addEventListener("scroll", () => this.#scrolled());
    const observer = new ResizeObserver(() => this.#follow());
    for (const each of [scroll, ...scroll.children]) observer.observe(each);
  }

  get oldest() {
    return this.#order[0];
  }

  get full() {
    return this.#order.length >= SHOWN_ITEMS_MAX;
  }

  get nearBeginning() {
    return this.scroll.scrollTop < NEAR_THE_BEGINNING_PX;
  }

  /** Whether an item is shown, or known as one that is not: a call of a tool. */
  has(id) {
    return this.#order.includes(id);
  }

  /** Shows an item of the server's, once, in the server's order: behind the previous one, or before all where that is null. */
  show(item, previousId) {
    this.#know(item.id, previousId === null ? 0 : this.#order.indexOf(previousId) + 1 || this.#order.length);
    if (item.type !== "message") return;
    const element = this.#elementFor(item.id, item.role);
    const text = textOf(item);
    if (item.status !== "in_progress") this.#set(element, text, item.status);
    else if (!element.dataset.state || element.dataset.state === "incomplete") this.#set(element, text, "streaming");
  }

  /** Shows older items above all others, without moving what the reader looks at. items, times: newest first. */
  showOlder(items, times) {
    const { scrollHeight, scrollTop } = this.scroll;
    for (const [index, item] of items.entries()) {
      if (this.#order.includes(item.id)) continue;
      this.#order.unshift(item.id);
      if (item.type !== "message") continue;
      const element = this.#newElement(item.id, item.role);
      this.list.prepend(element);
      this.#set(element, textOf(item), item.status);
      element.date(times[index]);
    }
    this.scroll.scrollTop = scrollTop + this.scroll.scrollHeight - scrollHeight;
  }

  /** Says when items were stored. seconds: since 1970. */
  date(id, seconds) {
    this.#elements.get(id)?.date(seconds);
  }

  /** Shows what the user has just written, before the server knows of it. */
  showOwn(id, text) {
    this.#following = true;
    this.#know(id, this.#order.length);
    const element = this.#elementFor(id, "user");
    this.#set(element, text, "waiting");
    element.date(Date.now() / 1000);
  }

  append(id, delta) {
    if (!this.#elements.has(id)) return;
    this.#texts.set(id, this.textOf(id) + delta);
    this.#drawSoon(id);
  }

  /** Says something about a message below its text, such as why it was refused. */
  note(id, text, state) {
    const element = this.#elements.get(id);
    if (!element) return;
    this.#keepingTheEnd(() => element.note(text));
    if (state) element.dataset.state = state;
  }

  /** What was still being said when the line broke stays as it is. */
  interrupt() {
    for (const [id, element] of this.#elements)
      if (element.dataset.state === "streaming") this.note(id, words.interrupted, "incomplete");
  }

  textOf(id) {
    return this.#texts.get(id) ?? "";
  }

  /** The newest message: its id, role and state; nothing where there is none. */
  get last() {
    const { item: id, role, state } = this.list.lastElementChild?.dataset ?? {};
    return { id, role, state };
  }

  endsWithUser() {
    return this.last.role === "user";
  }

  /** A message as it is read out: without the marks of Markdown. */
  spoken(id) {
    return this.#elements.get(id)?.said.textContent ?? "";
  }

  stateOf(id) {
    return this.#elements.get(id)?.dataset.state;
  }

  /** The ids of what stands behind the user's last message. */
  sinceUser() {
    const at = this.#order.findLastIndex((id) => this.#elements.get(id)?.dataset.role === "user");
    return this.#order.slice(at + 1);
  }

  /** The ids of an item and of all that follow it. */
  from(id) {
    const at = this.#order.indexOf(id);
    return at < 0 ? [] : this.#order.slice(at);
  }

  remove(id) {
    clearTimeout(this.#due.get(id));
    this.#due.delete(id);
    this.#elements.get(id)?.remove();
    this.#elements.delete(id);
    this.#texts.delete(id);
    this.#order = this.#order.filter((each) => each !== id);
    this.hint.hidden = this.#elements.size > 0;
  }

  clear() {
    for (const timer of this.#due.values()) clearTimeout(timer);
    for (const known of [this.#due, this.#elements, this.#texts]) known.clear();
    this.#order = [];
    this.#following = true;
    this.list.replaceChildren();
    this.hint.hidden = false;
  }

  #know(id, at) {
    if (this.#order.includes(id)) return;
    this.#order.splice(at, 0, id);
    if (this.#order.length > SHOWN_ITEMS_MAX) this.remove(this.#order[0]);
  }

  #elementFor(id, role) {
    const known = this.#elements.get(id);
    if (known) return known;
    const element = this.#newElement(id, role);
    const before = this.#order.slice(0, this.#order.indexOf(id)).findLast((each) => this.#elements.has(each));
    this.#keepingTheEnd(() => (before ? this.#elements.get(before).after(element) : this.list.prepend(element)));
    return element;
  }

  #newElement(id, role) {
    const edit = () => this.dispatchEvent(new CustomEvent("edit", { detail: { id } }));
    const element = newMessage(id, role, () => this.textOf(id), edit);
    this.#elements.set(id, element);
    this.hint.hidden = true;
    return element;
  }

  #set(element, text, state) {
    const id = element.dataset.item;
    this.#texts.set(id, text);
    element.dataset.state = state;
    clearTimeout(this.#due.get(id));
    this.#due.delete(id);
    this.#keepingTheEnd(() => {
      this.#show(id);
      element.note({ incomplete: stopped.has(id) ? words.stopped : words.interrupted, waiting: words.waiting }[state] ?? "");
    });
  }

  #show(id) {
    const element = this.#elements.get(id);
    if (element.dataset.role !== "assistant") element.said.textContent = this.textOf(id);
    else showMarkdown(element.said, this.textOf(id), { growing: element.dataset.state === "streaming" });
  }

  // A long answer takes longer to draw: then it is drawn less often, so that the page stays free for its reader.
  #drawSoon(id) {
    if (this.#due.has(id)) return;
    const draw = () => {
      this.#due.delete(id);
      const began = performance.now();
      this.#keepingTheEnd(() => this.#show(id));
      this.#pause = Math.max(DRAW_MS_MIN, DRAW_SHARE * (performance.now() - began));
    };
    this.#due.set(id, setTimeout(draw, this.#pause));
  }

  #scrolled() {
    this.#following = this.#atEnd();
    if (this.nearBeginning) this.dispatchEvent(new Event("beginning"));
  }

  #keepingTheEnd(change) {
    change();
    this.#follow();
  }

  #follow() {
    if (this.#following) this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    return scrollHeight - scrollTop - clientHeight < NEAR_THE_END_PX;
  }
}

function textOf(item) {
  return (item.content ?? []).map((part) => part.text ?? "").join("");
}
