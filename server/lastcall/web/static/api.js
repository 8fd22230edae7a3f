// The HTTP API, as this user.

/** keyOf, userOf: asked at every request, because both can change. */
export class Api {
  constructor(keyOf, userOf) {
    this.keyOf = keyOf;
    this.userOf = userOf;
  }

  /** The status, 0 where there was no answer, and the JSON of the answer or null. */
  async ask(method, path, { query = {}, body } = {}) {
    const key = this.keyOf();
    const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) };
    try {
      const answer = await fetch(`${path}?${new URLSearchParams({ user: this.userOf(), ...query })}`, {
        method,
        headers,
        body: body && JSON.stringify(body),
      });
      return { status: answer.status, body: await answer.json() };
    } catch {
      return { status: 0, body: null }; // the connection's state already tells that the server is away
    }
  }
}
