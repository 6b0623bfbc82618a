// A question to the server, and its answer as it comes.

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
  for (const name of ["temperature", "top_p", "max_tokens", "thinking_budget"]) {
    const value = Number.parseFloat(settings[name]);
    if (Number.isFinite(value)) body[name] = value;
  }
  return body;
}

export function headers(key) {
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

/** Calls `onDelta({thinking, answer})`; resolves to {reason, usage}. Throws Error with the server's own words. */
export async function ask(body, key, signal, onDelta) {
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(key), body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(await errorText(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const events = new EventReader();
  const end = { reason: null, usage: null };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return end;
    for (const data of events.push(value)) if (data !== "[DONE]") take(JSON.parse(data), end, onDelta);
  }
}

function take(chunk, end, onDelta) {
  if (chunk.error) throw new Error(chunk.error.message);
  if (chunk.usage) end.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  end.reason = choice.finish_reason ?? end.reason;
  onDelta({ thinking: choice.delta.reasoning ?? "", answer: choice.delta.content ?? "" });
}

async function errorText(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `HTTP ${response.status}`;
  }
}
