// The openai package's client for browsers, on the platform's own WebSocket; Node 20 has none without a flag.
import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { RawClient } from './conversing.mjs';

globalThis.WebSocket ??= (await import('ws')).WebSocket;

export class Client extends RawClient {
  async open(url, key, query) {
    const address = () => {
      const resumed = this.conversation ? { conversation: this.conversation } : {};
      return new URL(`${url.replace('http', 'ws')}/v1/realtime?${new URLSearchParams({ ...query, ...resumed })}`);
    };
    this.conversation = null;
    return this.begin(() => {
      const openai = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, dangerouslyAllowBrowser: true });
      const options = { model: 'lastcall', reconnect: true, buildRealtimeURL: address };
      const realtime = new OpenAIRealtimeWebSocket(options, openai);
      realtime.on('event', (event) => this.receive(event));
      realtime.on('error', (error) => error.error ?? this.events.put({ type: 'sdk.lost', why: error.message }));
      return realtime;
    });
  }
}
