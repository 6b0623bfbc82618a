// A message as an article: the question in a panel, the answer as text with its thinking folded over it.

import { button, count, make, money, word } from "./page_look.js";
import { elements, parse } from "./page_markdown.js";

const COPIED_MS = 1200;
const WIDE = "pre, .display, .wide";

/** @param acts {edit(), branches: element|null} */
export function asker(message, acts) {
  const row = [button("edit", acts.edit), copyButton(message.content)];
  return make("article", { class: "user", "aria-label": word("you") },
    make("div", { class: "text" }, message.content), bar(row, acts.branches));
}

/** @param acts {again(), branches: element|null} */
export function answerer(message, acts) {
  const view = make("article", { class: "assistant", "aria-label": message.model || "assistant" });
  if (message.thinking) view.append(thinkingBox(message, false, ...drawn(message.thinking)));
  const answer = make("div", { class: "text" }, ...drawn(message.content));
  if (!message.content && !message.error) answer.append(make("p", { class: "soft" }, word("empty")));
  view.append(answer);
  if (message.error) view.append(make("p", { class: "error", role: "alert" }, message.error));
  view.append(bar([copyButton(message.content), button("again", acts.again)], acts.branches, make("span", { class: "facts" }, facts(message))));
  for (const block of view.querySelectorAll("pre")) block.append(copyButton(block.textContent));
  return view;
}

/** Thinking that is open while it comes and folded after. */
export function thinkingBox(message, open, ...children) {
  return make("details", { class: "thinking", open },
    make("summary", {}, thinkingSummary(message, open)), make("div", { class: "words text" }, ...children));
}

export function thinkingSummary(message, coming) {
  const seconds = (message.thinkingSeconds ?? 0).toFixed(1);
  return `${word(coming ? "thinking" : "thought")} ${seconds} ${word("seconds")} · ${count(message.thinkingTokens ?? 0)} ${word("tokens")}`;
}

/** Lets the keyboard reach what is wider than the page, so that it can be scrolled. */
export function reachable(log) {
  for (const block of log.querySelectorAll(WIDE)) if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
}

const drawn = (text) => elements(parse(text), document);

function bar(buttons, branches, ...rest) {
  return make("div", { class: "acts" }, ...(branches ? [branches] : []), ...buttons, ...rest);
}

function copyButton(text) {
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    made.textContent = word("copied");
    setTimeout(() => { made.textContent = word("copy"); }, COPIED_MS);
  };
  const made = button("copy", copy, { class: "copy" });
  return made;
}

function facts(message) {
  const said = [];
  if (message.model) said.push(message.model);
  if (message.tokens) said.push(`${count(message.tokens)} ${word("tokens")}`);
  if (message.tokens && message.seconds) said.push(`${(message.tokens / message.seconds).toFixed(1)} ${word("pace")}`);
  if (message.cost && message.currency) said.push(money(message.cost, message.currency));
  if (message.reason === "length") said.push(word("cut"));
  if (message.reason === "stopped") said.push(word("stopped"));
  return said.join(" · ");
}
