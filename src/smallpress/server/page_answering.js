// An answer as it comes: asked once, shown as it grows, stopped at will.

import { Flow, paced } from "./page_flow.js";
import { make, word } from "./page_look.js";
import { thinkingBox, thinkingSummary } from "./page_message.js";
import { Lost, ask } from "./page_stream.js";

const NEAR_END = 80;

export class Answering {
  #stopper = new AbortController();
  #began = performance.now();
  #first = 0;

  constructor(model, body, key) {
    this.body = body;
    this.key = key;
    this.message = { role: "assistant", model, content: "", thinking: "", thinkingTokens: 0, tokens: 0 };
  }

  get tokens() { return this.message.tokens; }

  /** Tokens a second since the first. */
  pace() {
    const seconds = (performance.now() - (this.#first || this.#began)) / 1000;
    return this.message.tokens / Math.max(seconds, 0.05);
  }

  stop() { this.#stopper.abort(); }

  /** Shows the answer in `view`, keeping the end of `log` in sight where it was; the message as it ended. */
  async run(view, log, onDraw) {
    const { message } = this;
    const show = drawer(message, view);
    const draw = paced(() => {
      const near = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
      show();
      onDraw();
      if (near) log.scrollTop = log.scrollHeight;
    });
    try {
      const { reason, usage } = await ask(this.body, this.key, this.#stopper.signal, (delta) => { this.#take(delta); draw(); });
      message.reason = reason ?? "stopped";
      if (usage) count(message, usage);
    } catch (error) {
      message.reason = error.name === "AbortError" ? "stopped" : "failed";
      if (error instanceof Lost) message.error = word("lost");
      else if (message.reason === "failed") message.error = `${word("failed")}: ${error.message}`;
    }
    message.seconds = (performance.now() - (this.#first || this.#began)) / 1000;
    return message;
  }

  #take({ thinking, answer }) {
    const now = performance.now();
    const { message } = this;
    this.#first ||= now;
    message.thinking += thinking;
    message.content += answer;
    if (thinking) { message.thinkingTokens += 1; message.thinkingSeconds = (now - this.#began) / 1000; }
    if (thinking || answer) message.tokens += 1;
  }
}

function count(message, usage) {
  message.tokens = usage.completion_tokens;
  message.thinkingTokens = usage.completion_tokens_details?.reasoning_tokens ?? message.thinkingTokens;
  message.total = usage.total_tokens;
  message.hit = usage.prompt_cache_hit_tokens ?? 0;
  message.miss = usage.prompt_cache_miss_tokens ?? usage.prompt_tokens;
}

/** Draws the message's thinking and answer; thinking folds itself when the answer begins, unless it was touched. */
function drawer(message, view) {
  const words = make("div", { class: "text" });
  const answer = new Flow(words);
  let box = null, thought = null, folded = false;
  view.append(words);
  return () => {
    if (message.thinking && !box) {
      box = thinkingBox(message, true);
      thought = new Flow(box.lastChild);
      view.prepend(box);
    }
    if (box && !folded) {
      thought.show(message.thinking);
      folded = message.content.length > 0;
      if (folded) box.open = false;
      box.firstChild.textContent = thinkingSummary(message, !folded);
    }
    answer.show(message.content);
  };
}
