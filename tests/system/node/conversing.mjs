// What the clients share. Nothing here or in the clients needs Node: a browser runs the same files.

export const TOOL = {
  type: 'function',
  name: 'get_weather',
  description: 'The weather in a city.',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
};
export const weather = (city) => `sunny in ${city}`;

const PATIENCE_MS = 10_000;

/** Events in the order of their arrival, for one reader. */
export class Events {
  #arrived = [];
  #wanted = null;

  put(event) {
    this.#arrived.push(event);
    this.#wanted?.();
  }

  async next(expected) {
    while (this.#arrived.length === 0) {
      let timer;
      await new Promise((resolve, reject) => {
        this.#wanted = resolve;
        timer = setTimeout(() => reject(new Error(`nothing came before ${expected}`)), PATIENCE_MS);
      }).finally(() => clearTimeout(timer));
    }
    return this.#arrived.shift();
  }

  /** The next event of a type. Fails for an error before it. */
  async until(type) {
    for (;;) {
      const event = await this.next(type);
      if (event.type === type) return event;
      if (event.type === 'error' || event.type === 'sdk.lost') {
        throw new Error(`${JSON.stringify(event)} before ${type}`);
      }
    }
  }
}

/** A client that sends and receives events as they are on the wire; subclasses say how. */
export class RawClient {
  constructor(tellFrame) {
    this.tellFrame = tellFrame;
  }

  /** For subclasses: a new connection begins. `connect` returns what has `send(event)` and `close()`. */
  async begin(connect) {
    this.events = new Events();
    this.items = new Map();
    this.connection = connect();
    return this.begun();
  }

  async begun() {
    const { session } = await this.events.until('session.created');
    this.conversation = session.conversation_id;
    return this.conversation;
  }

  /** For subclasses: an event came. */
  receive(event) {
    this.tellFrame(event);
    if (event.type === 'conversation.item.done' && event.item.type === 'message') {
      this.items.set(event.item.id, [event.item.role, event.item.content.map((part) => part.text).join('')]);
    }
    this.events.put(event);
  }

  ask(text) {
    const item = { type: 'message', role: 'user', content: [{ type: 'input_text', text }] };
    this.connection.send({ type: 'conversation.item.create', item });
    this.connection.send({ type: 'response.create' });
  }

  async turn(text) {
    this.ask(text);
    const deltas = [];
    for (;;) {
      const event = await this.events.next('response.done');
      if (event.type === 'response.output_text.delta') deltas.push(event.delta);
      if (event.type === 'response.done') return { deltas, status: event.response.status };
      if (event.type === 'error') throw new Error(JSON.stringify(event));
    }
  }

  async cancel(text) {
    this.ask(text);
    await this.events.until('response.output_text.delta');
    this.connection.send({ type: 'response.cancel' });
    return (await this.events.until('response.done')).response.status;
  }

  async error() {
    this.connection.send({ type: 'response.cancel', event_id: 'mine' });
    const { error } = await this.events.until('error');
    return { code: error.code, event_id: error.event_id };
  }

  async tool(text) {
    this.connection.send({ type: 'session.update', session: { type: 'realtime', tools: [TOOL] } });
    this.ask(text);
    const calls = [];
    for (;;) {
      const { output } = (await this.events.until('response.done')).response;
      const wanted = output.filter((item) => item.type === 'function_call');
      if (wanted.length === 0) return { calls, text: output.at(-1).content[0].text };
      for (const call of wanted) {
        calls.push(JSON.parse(call.arguments));
        const item = { type: 'function_call_output', call_id: call.call_id, output: weather(calls.at(-1).city) };
        this.connection.send({ type: 'conversation.item.create', item });
      }
      this.connection.send({ type: 'response.create' });
    }
  }

  /** Waits until these messages were told, in this order, whoever made them. */
  async heard(texts) {
    const heard = [];
    while (heard.length < texts.length) {
      const { item } = await this.events.until('conversation.item.done');
      if (this.items.get(item.id)?.[1] === texts[heard.length]) heard.push(this.items.get(item.id));
    }
    return heard;
  }

  async history() {
    this.connection.send({ type: 'session.update', session: { type: 'realtime' } });
    await this.events.until('session.updated');
    return [...this.items.values()];
  }

  /** Waits until the client has connected again by itself. */
  async resumed() {
    this.items.clear();
    return this.begun();
  }

  async close() {
    this.connection.close();
  }
}
