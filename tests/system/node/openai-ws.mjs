// The openai package's client for Node, on the `ws` package.
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { RawClient } from './conversing.mjs';

export class Client extends RawClient {
  async open(url, key, query) {
    const address = () => {
      const resumed = this.conversation ? { conversation: this.conversation } : {};
      return new URL(`${url.replace('http', 'ws')}/v1/realtime?${new URLSearchParams({ ...query, ...resumed })}`);
    };
    this.conversation = null;
    return this.begin(() => {
      const openai = new OpenAI({ apiKey: key, baseURL: `${url}/v1` });
      const realtime = new OpenAIRealtimeWS({ model: 'lastcall', reconnect: true, buildRealtimeURL: address }, openai);
      realtime.on('event', (event) => this.receive(event));
      realtime.on('error', (error) => error.error ?? this.events.put({ type: 'sdk.lost', why: error.message }));
      return realtime;
    });
  }
}
