// The chat page: state, and what is shown of it.

import { asked, checked, load, newId, save, title } from "/page/page_history.js";
import { elements, parse } from "/page/page_markdown.js";
import { ask, headers, requestBody } from "/page/page_stream.js";
import { WORDS, firstLanguage } from "/page/page_words.js";

const byId = (id) => document.getElementById(id);
const SETTINGS = ["system", "temperature", "top_p", "max_tokens", "thinking_budget"];
const ui = Object.fromEntries(
  ["chats", "log", "status", "question", "send", "stop", "model", "key", "file"].map((id) => [id, byId(id)]),
);

let language = firstLanguage(localStorage.getItem("smallpress.language"), navigator.language);
let chats = load(localStorage);
let current = null; // a chat of `chats`, or one not asked anything yet
let running = null; // the AbortController of the answer that is coming
let contexts = {}; // model -> tokens

const word = (name) => WORDS[language][name];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const button = (name, act, more = {}) => make("button", { type: "button", onclick: act, ...more }, word(name));

// ---- showing

function showWords() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", word(element.dataset.label));
  byId("language").textContent = WORDS[language === "en" ? "zh" : "en"].name;
}

function showTheme() {
  const chosen = localStorage.getItem("smallpress.theme");
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
  return dark;
}

function showChats() {
  ui.chats.replaceChildren(
    ...chats.map((chat) =>
      make("li", {},
        make("button", { type: "button", class: "open", "aria-current": String(chat.id === current.id), onclick: () => open(chat) }, title(chat)),
        button("remove", () => remove(chat), { "aria-label": `${word("remove")}: ${title(chat)}` }),
      ),
    ),
  );
}

function showLog() {
  ui.log.replaceChildren(...current.messages.map((message, index) => (message.role === "user" ? mine(message, index) : theirs(message, index))));
  ui.log.scrollTop = ui.log.scrollHeight;
}

function mine(message, index) {
  const text = make("div", { class: "text" }, message.content);
  const acts = make("div", { class: "acts" }, button("edit", () => edit(index)), button("copy", () => copy(message.content)));
  return make("article", { class: "user", "aria-label": word("you") }, text, acts);
}

function theirs(message, index) {
  const article = make("article", { class: "assistant", "aria-label": ui.model.value || "assistant" });
  article.append(...parts(message, false));
  const acts = make("div", { class: "acts" }, button("copy", () => copy(message.content)));
  if (index === current.messages.length - 1) acts.append(button("again", () => again(index)));
  acts.append(make("span", {}, facts(message)));
  article.append(acts);
  return article;
}

/** Thinking, open while it comes and folded after, then the answer. */
function parts(message, coming) {
  const out = [];
  if (message.thinking) {
    const open = coming && !message.content;
    const seconds = (message.thinkingSeconds ?? 0).toFixed(1);
    const counted = `${seconds} ${word("seconds")}, ${message.thinkingTokens ?? 0} ${word("tokens")}`;
    const summary = make("summary", {}, `${word(open ? "thinking" : "thought")} ${counted}`);
    out.push(make("details", { class: "thinking", open }, summary, make("div", { class: "words" }, message.thinking)));
  }
  const answer = make("div", { class: "text" });
  answer.append(...elements(parse(message.content), document));
  if (!message.content && !coming && !message.error) answer.append(word("empty"));
  out.push(answer);
  if (message.error) out.push(make("p", { class: "error", role: "alert" }, `${word("failed")}: ${message.error}`));
  return out;
}

function facts(message) {
  const said = [];
  if (message.tokens) said.push(`${message.tokens} ${word("tokens")}, ${(message.tokens / Math.max(message.seconds, 1e-3)).toFixed(1)}/${word("seconds")}`);
  if (message.reason === "length") said.push(word("cut"));
  if (message.reason === "stopped") said.push(word("stopped"));
  const context = contexts[ui.model.value];
  if (context && message.total) said.push(`${Math.max(context - message.total, 0)} ${word("left")}`);
  return said.join(" · ");
}

// ---- doing

function open(chat) {
  running?.abort();
  current = chat;
  showChats();
  showLog();
}

function fresh() {
  open({ id: newId(), messages: [] });
  ui.question.focus();
}

function remove(chat) {
  chats = chats.filter(({ id }) => id !== chat.id);
  keep();
  if (chat.id === current.id) fresh();
  else showChats();
}

function keep() {
  if (!save(localStorage, chats)) ui.status.textContent = "localStorage is full";
}

function put(chat) {
  current = chat;
  chats = [chat, ...chats.filter(({ id }) => id !== chat.id)];
  keep();
  showChats();
}

async function copy(text) {
  await navigator.clipboard.writeText(text);
}

function edit(index) {
  const article = ui.log.children[index];
  const area = make("textarea", { rows: 3, "aria-label": word("edit") });
  area.value = current.messages[index].content;
  area.style.width = "100%";
  const send = () => area.value.trim() && question(asked(current, index, area.value.trim()));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
    if (event.key === "Escape") { event.stopPropagation(); showLog(); }
  });
  article.replaceChildren(area, make("div", { class: "acts" }, button("send", send)));
  area.focus();
}

function again(index) {
  const asking = current.messages.findLastIndex(({ role }, at) => role === "user" && at < index);
  if (asking >= 0) question(asked(current, asking, current.messages[asking].content));
}

async function question(chat) {
  running?.abort();
  put(chat);
  const stopper = new AbortController();
  const message = { role: "assistant", content: "", thinking: "", thinkingTokens: 0, tokens: 0 };
  const body = requestBody(ui.model.value, chat.messages, settings());
  running = stopper;
  busy(true);
  showLog();
  const article = make("article", { class: "assistant", "aria-busy": "true" });
  ui.log.append(article);
  await answer(message, body, stopper, article);
  chat.messages.push(message);
  if (running === stopper) { running = null; busy(false); }
  if (chats.some(({ id }) => id === chat.id)) keep();
  if (current === chat) showLog();
}

async function answer(message, body, stopper, article) {
  const began = performance.now();
  let first = 0;
  let due = false;
  const draw = () => {
    due = false;
    const near = ui.log.scrollHeight - ui.log.scrollTop - ui.log.clientHeight < 80;
    article.replaceChildren(...parts(message, true));
    if (near) ui.log.scrollTop = ui.log.scrollHeight;
  };
  const onDelta = (delta) => {
    const now = performance.now();
    first ||= now;
    message.thinking += delta.thinking;
    message.content += delta.answer;
    if (delta.thinking) { message.thinkingTokens += 1; message.thinkingSeconds = (now - began) / 1000; }
    if (delta.thinking || delta.answer) message.tokens += 1;
    if (!due) { due = true; requestAnimationFrame(draw); }
  };
  try {
    const { reason, usage } = await ask(body, ui.key.value, stopper.signal, onDelta);
    message.reason = reason ?? "stopped";
    if (usage) {
      message.tokens = usage.completion_tokens;
      message.thinkingTokens = usage.completion_tokens_details.reasoning_tokens;
      message.total = usage.total_tokens;
    }
  } catch (error) {
    message.reason = error.name === "AbortError" ? "stopped" : "failed";
    if (message.reason === "failed") message.error = error.message;
  }
  message.seconds = (performance.now() - (first || began)) / 1000;
}

function busy(is) {
  ui.send.hidden = is;
  ui.stop.hidden = !is;
  ui.status.textContent = is ? "…" : "";
}

function settings() {
  return Object.fromEntries(SETTINGS.map((name) => [name, byId(name).value]));
}

async function findModels() {
  try {
    const response = await fetch("/v1/models", { headers: headers(ui.key.value) });
    const found = await response.json();
    if (!response.ok) throw new Error(found.error.message);
    contexts = Object.fromEntries(found.data.map((model) => [model.id, model.max_model_len]));
    ui.model.replaceChildren(...found.data.map((model) => make("option", { value: model.id }, model.id)));
    const chosen = localStorage.getItem("smallpress.model");
    if (chosen in contexts) ui.model.value = chosen;
    ui.status.textContent = "";
  } catch (error) {
    ui.status.textContent = error.message;
    byId("settings").open = true;
  }
}

function exportChats() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(chats, null, 1)], { type: "application/json" }));
  const link = make("a", { href: url, download: "smallpress-chats.json" });
  link.click();
  URL.revokeObjectURL(url);
}

async function importChats() {
  try {
    const found = checked(JSON.parse(await ui.file.files[0].text()));
    const ids = new Set(found.map(({ id }) => id));
    chats = [...found, ...chats.filter(({ id }) => !ids.has(id))];
    keep();
    showChats();
  } catch {
    ui.status.textContent = word("badFile");
  }
  ui.file.value = "";
}

// ---- beginning

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const content = ui.question.value.trim();
    if (!content || running) return;
    ui.question.value = "";
    question({ ...current, messages: [...current.messages, { role: "user", content }] });
  });
  ui.question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("ask").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
    if ((event.ctrlKey || event.metaKey) && event.key === "k") { event.preventDefault(); ui.question.focus(); }
    if ((event.ctrlKey || event.metaKey) && event.shiftKey && event.key.toLowerCase() === "o") { event.preventDefault(); fresh(); }
  });
  ui.stop.addEventListener("click", () => running?.abort());
  byId("new").addEventListener("click", fresh);
  byId("export").addEventListener("click", exportChats);
  byId("import").addEventListener("click", () => ui.file.click());
  ui.file.addEventListener("change", importChats);
  byId("theme").addEventListener("click", () => {
    localStorage.setItem("smallpress.theme", showTheme() ? "light" : "dark");
    showTheme();
  });
  byId("language").addEventListener("click", () => {
    language = language === "en" ? "zh" : "en";
    localStorage.setItem("smallpress.language", language);
    showWords();
    showChats();
    showLog();
  });
  ui.model.addEventListener("change", () => localStorage.setItem("smallpress.model", ui.model.value));
  ui.key.addEventListener("change", () => { sessionStorage.setItem("smallpress.key", ui.key.value); findModels(); });
  for (const name of SETTINGS) {
    byId(name).value = localStorage.getItem(`smallpress.${name}`) ?? "";
    byId(name).addEventListener("change", () => localStorage.setItem(`smallpress.${name}`, byId(name).value));
  }
}

ui.key.value = sessionStorage.getItem("smallpress.key") ?? "";
showWords();
showTheme();
listen();
if (chats.length) open(chats[0]);
else fresh();
findModels();
