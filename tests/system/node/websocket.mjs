// No SDK: the platform's own WebSocket. It cannot set headers, so the key travels as a subprotocol.
import { RawClient } from './conversing.mjs';

const RETRY_MS = 500;
const RECOVERABLE = [1006, 1011, 1012, 1013];

export class Client extends RawClient {
  async open(url, key, query) {
    this.conversation = null;
    this.connect = () => {
      const resumed = this.conversation ? { conversation: this.conversation } : {};
      const address = `${url.replace('http', 'ws')}/v1/realtime?${new URLSearchParams({ ...query, ...resumed })}`;
      const socket = new WebSocket(address, ['realtime', `openai-insecure-api-key.${key}`]);
      socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
      socket.onclose = ({ code }) => RECOVERABLE.includes(code) && setTimeout(() => this.again(), RETRY_MS);
      return { send: (event) => socket.send(JSON.stringify(event)), close: () => socket.close(1000) };
    };
    return this.begin(this.connect);
  }

  again() {
    this.connection = this.connect();
  }
}
