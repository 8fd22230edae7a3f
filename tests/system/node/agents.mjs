// The openai-agents SDK. It runs the tools, keeps the history, and does not reconnect.
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { Events, TOOL, weather } from './conversing.mjs';

export class Client {
  constructor(tellFrame) {
    this.tellFrame = tellFrame;
  }

  async open(url, key, query) {
    this.calls = [];
    this.events = new Events();
    this.arguments = [key, query];
    const getWeather = tool({
      ...TOOL,
      strict: true,
      execute: ({ city }) => {
        this.calls.push({ city });
        return weather(city);
      },
    });
    this.session = new RealtimeSession(new RealtimeAgent({ name: 'lastcall', tools: [getWeather] }), {
      transport: new OpenAIRealtimeWebSocket({ useInsecureApiKey: true }),
      config: { outputModalities: ['text'], audio: { input: { turnDetection: null, transcription: null } } },
    });
    this.listen();
    const address = `${url.replace('http', 'ws')}/v1/realtime?${new URLSearchParams({ model: 'lastcall', ...query })}`;
    await this.session.connect({ apiKey: key, url: address });
    this.conversation = (await this.events.until('session.created')).session.conversation_id;
    await this.events.until('session.updated');
    return this.conversation;
  }

  listen() {
    const { events, session, tellFrame } = this;
    const frames = new Set();
    session.transport.on('*', (event) => {
      if (!event.event_id?.startsWith('event_')) return; // the SDK's own
      if (!frames.has(event.event_id)) tellFrame(event);
      frames.add(event.event_id);
      if (event.type !== 'error') events.put(event);
    });
    session.transport.on('output_text_delta', ({ delta }) => events.put({ type: 'sdk.delta', delta }));
    session.transport.on('connection_change', (status) => {
      if (status === 'disconnected') events.put({ type: 'sdk.lost' });
    });
    session.on('error', ({ error }) => events.put({ type: 'error', error: error?.error ?? error }));
  }

  async turn(text) {
    this.session.sendMessage(text);
    const deltas = [];
    for (;;) {
      const event = await this.events.next('response.done');
      if (event.type === 'sdk.delta') deltas.push(event.delta);
      if (event.type === 'response.done') return { deltas, status: event.response.status };
      if (event.type === 'error') throw new Error(JSON.stringify(event));
    }
  }

  /** Not by `session.interrupt()`: in text mode that sends nothing. */
  async cancel(text) {
    this.session.sendMessage(text);
    await this.events.until('sdk.delta');
    this.session.transport.sendEvent({ type: 'response.cancel' });
    return (await this.events.until('response.done')).response.status;
  }

  async error() {
    this.session.transport.sendEvent({ type: 'response.cancel', event_id: 'mine' });
    const { error } = await this.events.until('error');
    return { code: error.code, event_id: error.event_id };
  }

  async tool(text) {
    this.session.sendMessage(text);
    for (;;) {
      const { output } = (await this.events.until('response.done')).response;
      if (output.every((item) => item.type !== 'function_call')) {
        return { calls: this.calls, text: output.at(-1).content[0].text };
      }
    }
  }

  async history() {
    const messages = this.session.history.filter((item) => item.type === 'message');
    return messages.map((item) => [item.role, item.content.map((part) => part.text).join('')]);
  }

  /** Waits for the end of the connection, and goes on in a new one, as an application has to. */
  async resumed(url) {
    await this.events.until('sdk.lost');
    const [key, query] = this.arguments;
    return this.open(url, key, { ...query, conversation: this.conversation });
  }

  async close() {
    this.session.close();
  }
}
