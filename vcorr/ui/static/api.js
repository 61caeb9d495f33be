/** Asks the server. The token is in the address that `vcorr ui` printed, behind the #, which browsers keep to themselves. */

const token = location.hash.slice(1);

/** What this page calls itself, so that it knows its own strokes among those that it is told of. */
export const page = Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");

/** A request that the server refused. */
export class Refused extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {BodyInit | object} [body] an object that is no bytes is sent as JSON
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
export async function ask(method, path, body, signal) {
  const bytes = body instanceof Uint8Array || body === undefined;
  const response = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${token}`, "x-page": page },
    body: bytes ? /** @type {any} */ (body) : JSON.stringify(body),
    signal,
  });
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Refused(response.status, said.error ?? `the server answered ${response.status}`);
  }
  return response;
}

/** @param {string} path */
export async function get(path) {
  return (await ask("GET", path)).json();
}

/**
 * Listens to the server's events, and again after every loss.
 * @param {(event: string, data: any) => void} told
 * @param {(there: boolean, why?: Error) => void} connected
 */
export async function listen(told, connected) {
  for (let wait = 250; ; wait = Math.min(wait * 2, 4000)) {
    try {
      const response = await ask("GET", "/api/events");
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
      connected(true);
      wait = 250;
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const events = text.split("\n\n");
        text = /** @type {string} */ (events.pop());
        for (const one of events) {
          const name = /^event: (.*)$/m.exec(one);
          const data = /^data: (.*)$/m.exec(one);
          if (name && data) told(name[1], JSON.parse(data[1]));
        }
      }
      connected(false);
    } catch (error) {
      connected(false, /** @type {Error} */ (error));
      if (error instanceof Refused && error.status === 401) return;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
