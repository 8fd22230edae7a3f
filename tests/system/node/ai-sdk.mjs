// The AI SDK's realtime session, as its hooks for React, Vue and Svelte use it. It runs the tools, keeps the messages
// and does not reconnect. It needs a browser: it makes a context for sound even where there is none.
import { createOpenAI } from '@ai-sdk/openai';
import { Experimental_AbstractRealtimeSession as RealtimeSession } from 'ai';
import { Events, TOOL, weather } from './conversing.mjs';

class Session extends RealtimeSession {
  setState(key, value) {
    this[key] = value;
    this.changed?.(key, value);
  }
}

export class Client {
  constructor(tellFrame) {
    this.tellFrame = tellFrame;
  }

  async open(url, key, query) {
    this.calls = [];
    const events = new Events(); // an earlier session tells late that it was closed, and not to this one
    this.events = events;
    this.items = new Map();
    this.arguments = [key, query];
    const address = `${url.replace('http', 'ws')}/v1/realtime?${new URLSearchParams({ model: 'lastcall', ...query })}`;
    const { type, name, description, parameters } = TOOL;
    const session = new Session({
      model: createOpenAI({ baseURL: `${url}/v1` }).experimental_realtime('lastcall'),
      api: { token: `/setup?${new URLSearchParams({ token: key, url: address })}` },
      sessionConfig: {
        outputModalities: ['text'],
        turnDetection: { type: 'disabled' },
        tools: [{ type, name, description, parameters }],
      },
      onToolCall: ({ toolCall: { args } }) => {
        this.calls.push(args);
        return weather(args.city);
      },
      onEvent: (event) => this.receive(event),
      onError: (error) => events.put({ type: 'sdk.error', message: error.message }),
    });
    session.changed = (key, value) => {
      if (key === 'status' && (value === 'error' || value === 'disconnected')) events.put({ type: 'sdk.lost' });
    };
    this.session = session;
    await session.connect();
    this.conversation = (await this.events.until('session.created')).session.conversation_id;
    await this.events.until('session.updated');
    return this.conversation;
  }

  /** The SDK's own event goes before the one that it was on the wire. */
  receive(event) {
    this.tellFrame(event.raw);
    const { type, item } = event.raw;
    if (type === 'conversation.item.done' && item.type === 'message') {
      this.items.set(item.id, [item.role, item.content.map((part) => part.text).join('')]);
    }
    if (event.type === 'text-delta') this.events.put({ type: 'sdk.delta', delta: event.delta });
    this.events.put(event.raw);
  }

  async turn(text) {
    this.session.sendTextMessage(text);
    const deltas = [];
    for (;;) {
      const event = await this.events.next('response.done');
      if (event.type === 'sdk.delta') deltas.push(event.delta);
      if (event.type === 'response.done') return { deltas, status: event.response.status };
      if (event.type === 'error' || event.type === 'sdk.lost') throw new Error(JSON.stringify(event));
    }
  }

  async cancel(text) {
    this.session.sendTextMessage(text);
    await this.events.until('sdk.delta');
    this.session.cancelResponse();
    return (await this.events.until('response.done')).response.status;
  }

  /** The SDK sends no id with a cancellation, so the error names none. */
  async error() {
    this.session.cancelResponse();
    for (;;) {
      const { type, error } = await this.events.next('error');
      if (type === 'error') return { code: error.code, event_id: error.event_id };
    }
  }

  async tool(text) {
    this.session.sendTextMessage(text);
    for (;;) {
      const { output } = (await this.events.until('response.done')).response;
      if (output.every((item) => item.type !== 'function_call')) {
        return { calls: this.calls, text: output.at(-1).content[0].text };
      }
    }
  }

  /** The server's items: the SDK's messages are only those that it sent or received itself. */
  async history() {
    return [...this.items.values()];
  }

  /** Waits for the end of the connection, and goes on in a new one, as an application has to. */
  async resumed(url) {
    for (;;) {
      if ((await this.events.next('sdk.lost')).type === 'sdk.lost') break;
    }
    const [key, query] = this.arguments;
    return this.open(url, key, { ...query, conversation: this.conversation });
  }

  async close() {
    this.session.disconnect();
  }
}
