// `node program.mjs CLIENT`: does what a test asks for, a JSON object a line; see tests/system/official/conversing.py.
import { createInterface } from 'node:readline';

const { Client } = await import(`./${process.argv[2]}.mjs`);
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const client = new Client((frame) => tell({ frame }));
tell({ done: 'ready' });

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    tell({ done: (await client[request.do](...request.with)) ?? null });
  } catch (error) {
    tell({ failed: error?.stack ?? String(error) });
  }
}
process.exit(0);
