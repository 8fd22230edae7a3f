// The conversation as a list of elements, one for each item id; text only, never markup.

const NEAR_THE_END_PX = 80;
const SHOWN_ITEMS_MAX = 1000;

export class Transcript {
  #elements = new Map();
  #following = true; // the newest text, unless the reader has scrolled up

  constructor(list, scroll, hint) {
    this.list = list;
    this.scroll = scroll;
    this.hint = hint;
    scroll.addEventListener("scroll", () => (this.#following = this.#atEnd()));
    new ResizeObserver(() => this.#follow()).observe(scroll);
  }

  /** Shows an item of the server's, once, in the server's order. */
  show(item, previousId) {
    if (item.type !== "message") return;
    const element = this.#elementFor(item.id, item.role, previousId);
    const text = textOf(item);
    if (item.status !== "in_progress") this.#set(element, text, item.status);
    else if (!element.dataset.state || element.dataset.state === "incomplete") this.#set(element, text, "streaming");
  }

  /** Shows what the user has just written, before the server knows of it. */
  showOwn(id, text) {
    this.#following = true;
    this.#set(this.#elementFor(id, "user"), text, "waiting");
  }

  append(id, delta) {
    const said = this.#elements.get(id)?.firstChild;
    if (said) this.#keepingTheEnd(() => said.append(delta));
  }

  /** Says something about a message below its text, such as why it was refused. */
  note(id, text, state) {
    const element = this.#elements.get(id);
    if (!element) return;
    this.#keepingTheEnd(() => (element.lastChild.textContent = text));
    if (state) element.dataset.state = state;
  }

  /** What was still being said when the line broke stays as it is. */
  interrupt() {
    for (const [id, element] of this.#elements)
      if (element.dataset.state === "streaming") this.note(id, "interrupted", "incomplete");
  }

  textOf(id) {
    return this.#elements.get(id)?.firstChild.textContent ?? "";
  }

  endsWithUser() {
    return this.list.lastElementChild?.dataset.role === "user";
  }

  remove(id) {
    this.#elements.get(id)?.remove();
    this.#elements.delete(id);
    this.hint.hidden = this.#elements.size > 0;
  }

  clear() {
    for (const id of [...this.#elements.keys()]) this.remove(id);
  }

  #elementFor(id, role, previousId) {
    const known = this.#elements.get(id);
    if (known) return known;
    const element = newElement(id, role);
    const previous = this.#elements.get(previousId);
    this.#keepingTheEnd(() => (previous ? previous.after(element) : this.list.append(element)));
    this.#elements.set(id, element);
    this.hint.hidden = true;
    if (this.#elements.size > SHOWN_ITEMS_MAX) this.remove(this.list.firstElementChild.dataset.item);
    return element;
  }

  #set(element, text, state) {
    this.#keepingTheEnd(() => {
      element.firstChild.textContent = text;
      element.dataset.state = state;
      element.lastChild.textContent = { incomplete: "stopped", waiting: "waiting to be sent" }[state] ?? "";
    });
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

function newElement(id, role) {
  const element = document.createElement("li");
  element.className = "message";
  element.dataset.item = id;
  element.dataset.role = role;
  for (const part of ["said", "note"]) {
    const span = document.createElement("span");
    span.className = part;
    element.append(span);
  }
  element.firstChild.setAttribute("dir", "auto");
  return element;
}
