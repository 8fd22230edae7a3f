// One user's line to the server: opens it, and opens it again when it breaks, in the same conversation.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const OPENING_MS = 10_000; // from opening to the server's first event
export const BAD_KEY = 3000;
export const CLOSED_BY_SOMEBODY = 4001;
export const IDLE = "idle"; // in the place of a close code: the session was closed because nobody said anything
const REFUSED = 1008;
const TIME_IS_UP = 1001;
const RESTARTING = 1012;
// Nothing is opened again by itself that was refused, or that somebody closed.
const FINAL = new Set([REFUSED, BAD_KEY, 4000, CLOSED_BY_SOMEBODY, IDLE]);

/**
 * Events: `state` {state, seconds}, `event` (one of the server's), `lost` {code, reason}.
 *
 * state: connecting, connected, restarting, reconnecting, offline (the network is), closed (until `open`).
 * seconds: until the next try.
 */
export class Connection extends EventTarget {
  #socket = null;
  #timers = new Set();
  #attempt = 0;
  #waiting = false; // for the next try
  #idle = false;

  constructor(addressOf, keyOf) {
    super();
    this.addressOf = addressOf; // asked at every try, because the conversation's id is learned on the way
    this.keyOf = keyOf;
    addEventListener("online", () => this.#waiting && this.open());
  }

  open() {
    this.close();
    this.#say("connecting");
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
    this.#idle = false;
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
      this.#say("connected");
    }
    if (event.type === "error" && event.error.code === "session_idle") this.#idle = true;
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
  }

  #attemptFailed(socket) {
    socket.close();
    this.#closed(socket, { code: 1006, reason: "" });
  }

  #closed(socket, { code: sent, reason }) {
    if (socket !== this.#socket) return;
    const code = sent === TIME_IS_UP && this.#idle ? IDLE : sent;
    this.close();
    this.dispatchEvent(new CustomEvent("lost", { detail: { code, reason } }));
    if (this.#socket) return; // whoever heard of it has opened another one
    if (FINAL.has(code)) this.#say("closed");
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
    const state = code === RESTARTING ? "restarting" : navigator.onLine ? "reconnecting" : "offline";
    this.#say(state, Math.max(0, Math.ceil(left / 1000)));
    if (left <= 0) this.#after(0, () => this.open());
    else this.#after(Math.min(left, 1000), () => this.#countDown(due, code));
  }

  #say(state, seconds = 0) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, seconds } }));
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
