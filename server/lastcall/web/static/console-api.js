// `/v1/admin/…`, as the holder of a key.

import { key } from "./visit.js";

const ANSWER_MS = 8000;
const FILE_MS = 30_000; // for which the server goes on sending

/** What an answer says that is not a success. status: 0 where there was none. */
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, { query = {}, body, within = ANSWER_MS } = {}) {
  const held = key.get();
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  let answer;
  try {
    answer = await fetch(`/v1/admin/${path}${search && `?${search}`}`, {
      method,
      headers: { ...(held && { Authorization: `Bearer ${held}` }), ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(within),
    });
  } catch {
    throw new Failure(0, "");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Failure(answer.status, told?.error?.message ?? "");
}

export const get = async (path, query) => (await ask("GET", path, { query })).json();
export const post = async (path, body = {}) => (await ask("POST", path, { body })).json();
export const remove = async (path) => (await ask("DELETE", path)).json();
export const file = async (path, query) => (await ask("GET", path, { query, within: FILE_MS })).blob();

/** The pages of a list, at most so many entries. */
export async function all(path, query, most) {
  const found = [];
  let after = null;
  do {
    const page = await get(path, { ...query, limit: 100, after });
    found.push(...page.data);
    after = page.next;
  } while (after && found.length < most);
  return found;
}
