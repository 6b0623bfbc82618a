// A question to the server, and its answer as it comes.

export const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "thinking_budget"];

/** The connection ended before the answer did. */
export class Lost extends Error {}

/** Splits a stream's text into its events' data, wherever the pieces are cut. */
export class EventReader {
  #held = "";

  push(text) {
    this.#held += text;
    const events = this.#held.split("\n\n");
    this.#held = events.pop();
    return events.flatMap((event) => event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)));
  }
}

/** What a request's body holds; empty settings are left to the server. */
export function requestBody(model, messages, settings) {
  const turns = messages.map(({ role, content }) => ({ role, content }));
  const system = settings.system?.trim() ? [{ role: "system", content: settings.system }] : [];
  const body = { model, messages: [...system, ...turns], stream: true, stream_options: { include_usage: true } };
  for (const name of NUMBERS) {
    const value = Number.parseFloat(settings[name]);
    if (Number.isFinite(value)) body[name] = value;
  }
  return body;
}

export function headers(key) {
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

/** What the server answers to a GET; throws Error with its own words. */
export async function get(path, key) {
  const response = await reach(path, { headers: headers(key) });
  if (!response.ok) throw Object.assign(new Error(await errorText(response)), { status: response.status });
  return response.json();
}

/** Calls `onDelta({thinking, answer})`; resolves to {reason, usage}. Throws Lost, or Error with the server's own words. */
export async function ask(body, key, signal, onDelta) {
  const request = { method: "POST", headers: headers(key), body: JSON.stringify(body), signal };
  const response = await reach("/v1/chat/completions", request);
  if (!response.ok) throw new Error(await errorText(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const events = new EventReader();
  const end = { reason: null, usage: null };
  for (;;) {
    const { value, done } = await lostOr(reader.read());
    if (done) throw new Lost();
    for (const data of events.push(value)) {
      if (data === "[DONE]") return end;
      take(JSON.parse(data), end, onDelta);
    }
  }
}

const reach = (path, request) => lostOr(fetch(path, request));

/** Browsers say TypeError where the network failed. */
async function lostOr(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof TypeError ? new Lost() : error;
  }
}

function take(chunk, end, onDelta) {
  if (chunk.error) throw new Error(chunk.error.message);
  if (chunk.usage) end.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  end.reason = choice.finish_reason ?? end.reason;
  onDelta({ thinking: choice.delta?.reasoning ?? "", answer: choice.delta?.content ?? "" });
}

async function errorText(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `HTTP ${response.status}`;
  }
}
