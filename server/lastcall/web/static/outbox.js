// Messages that the server has not acknowledged, in order.

/** Sending again is safe by the item's id: the server refuses one that it already has. */
export class Outbox {
  #texts = new Map(); // item id -> text

  constructor(connection) {
    this.connection = connection;
  }

  get size() {
    return this.#texts.size;
  }

  get first() {
    return this.#texts.keys().next().value;
  }

  has(id) {
    return this.#texts.has(id);
  }

  entries() {
    return [...this.#texts];
  }

  /** Keeps a text until it is acknowledged; its item id. */
  keep(text) {
    const id = newItemId();
    this.#texts.set(id, text);
    return id;
  }

  send(id) {
    const content = [{ type: "input_text", text: this.#texts.get(id) }];
    const item = { id, type: "message", role: "user", content };
    this.connection.send({ type: "conversation.item.create", event_id: id, item });
  }

  /** Whether it was in here. */
  drop(id) {
    return this.#texts.delete(id);
  }

  clear() {
    this.#texts.clear();
  }
}

function newItemId() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return "item_" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
