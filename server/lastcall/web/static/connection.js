// One user's line to the server: opens it, and opens it again when it breaks, in the same conversation.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const OPENING_MS = 10_000; // from opening to the server's first event
const REFUSED = new Set([1008, 3000]); // closed for good: trying again would not help
const RESTARTING = 1012;

/** Events: `state` {state, text}, `event` (one of the server's), `lost` {code, reason}. */
export class Connection extends EventTarget {
  #socket = null;
  #timers = new Set();
  #attempt = 0;

  constructor(addressOf, keyOf) {
    super();
    this.addressOf = addressOf; // asked at every try, because the conversation's id is learned on the way
    this.keyOf = keyOf;
    addEventListener("online", () => this.#waiting && this.open());
  }

  #waiting = false; // for the next try

  open() {
    this.close();
    this.#say("connecting", "Connecting…");
    // Pages cannot set headers of a WebSocket, and a key has no place in an address.
    const key = this.keyOf();
    const socket = new WebSocket(this.addressOf(), ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])]);
    this.#socket = socket;
    socket.onmessage = (message) => this.#received(socket, message);
    socket.onclose = (close) => this.#closed(socket, close);
    this.#after(OPENING_MS, () => this.#attemptFailed(socket));
  }

  /** Ends the session; nothing is tried again until `open`. */
  close() {
    this.#clearTimers();
    this.#waiting = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** Whether it went out; not whether it arrived. */
  send(event) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(event));
    return true;
  }

  #received(socket, message) {
    if (socket !== this.#socket) return;
    const event = JSON.parse(message.data);
    if (event.type === "session.created") {
      this.#clearTimers();
      this.#attempt = 0;
      this.#say("connected", "Connected");
    }
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
  }

  #attemptFailed(socket) {
    socket.close();
    this.#closed(socket, { code: 1006, reason: "" });
  }

  #closed(socket, { code, reason }) {
    if (socket !== this.#socket) return;
    this.close();
    this.dispatchEvent(new CustomEvent("lost", { detail: { code, reason } }));
    if (REFUSED.has(code)) this.#say("offline", "Not connected");
    else this.#retry(code === RESTARTING && this.#attempt === 0, code);
  }

  #retry(atOnce, code) {
    const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#waiting = true;
    const due = Date.now() + (atOnce ? 0 : ceiling * (0.5 + Math.random() / 2));
    this.#countDown(due, code);
  }

  #countDown(due, code) {
    const left = due - Date.now();
    const why = code === RESTARTING ? "Server restarts, reconnecting" : navigator.onLine ? "Reconnecting" : "Offline, trying again";
    const seconds = Math.ceil(left / 1000);
    this.#say("reconnecting", left > 0 ? `${why} in ${seconds} s` : `${why}…`);
    if (left <= 0) this.#after(0, () => this.open());
    else this.#after(Math.min(left, 1000), () => this.#countDown(due, code));
  }

  #say(state, text) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text } }));
  }

  #after(milliseconds, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, milliseconds);
    this.#timers.add(timer);
  }

  #clearTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
