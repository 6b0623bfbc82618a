// The chat page: which chat is open, what is asked, and what its controls do.

import { Answering } from "./page_answering.js";
import { add, asMarkdown, checked, choose, load, newChat, save, shown, siblings, title } from "./page_history.js";
import { button, byId, count, dress, make, money, signButton, word } from "./page_look.js";
import { answerer, asker, reachable } from "./page_message.js";
import { NUMBERS, get, requestBody } from "./page_stream.js";

const SETTINGS = ["system", ...NUMBERS];
const LOADING_MS = 1500;
const ui = Object.fromEntries(
  ["side", "menu", "chats", "log", "status", "question", "send", "stop", "model", "key", "file", "settings", "meter", "facts"].map(
    (id) => [id, byId(id)],
  ),
);

let chats = load(localStorage);
let current = newChat(); // a chat of `chats`, or one not asked anything yet
let answering = null; // the answer that is coming
let contexts = {}; // model -> tokens
let prices = null; // what /usage says of rates and of each model's pace

// ---- showing

function showChats() {
  ui.chats.replaceChildren(
    ...chats.map((chat) =>
      make("li", {},
        make("button", { type: "button", class: "open", "aria-current": String(chat.id === current.id), onclick: () => open(chat) }, title(chat)),
        signButton("×", `${word("remove")}: ${title(chat)}`, () => remove(chat)),
      ),
    ),
  );
}

function showLog() {
  const places = shown(current);
  ui.log.replaceChildren(...places.map(article));
  if (!places.length) ui.log.append(welcome());
  reachable(ui.log);
  ui.log.scrollTop = ui.log.scrollHeight;
  showRoom();
}

function welcome() {
  return make("div", { class: "welcome" }, make("h2", {}, word("welcome")), make("p", {}, word("local")));
}

function article(at) {
  const message = current.messages[at];
  const acts = { edit: () => edit(at), again: () => question(message.parent), branches: branches(at) };
  return message.role === "user" ? asker(message, acts) : answerer(message, acts);
}

/** ‹ 1/2 › where a message has siblings. */
function branches(at) {
  const all = siblings(current, at);
  if (all.length < 2 || answering) return null;
  const place = all.indexOf(at);
  const go = (to) => {
    choose(current, all[to]);
    keep();
    showLog();
    const article = ui.log.children[shown(current).indexOf(all[to])];
    article.scrollIntoView({ block: "nearest" });
    article.querySelector(".branches button:enabled").focus({ preventScroll: true });
  };
  return make("span", { class: "branches", role: "group", "aria-label": word("version") },
    signButton("‹", word("earlier"), () => go(place - 1), { disabled: place === 0 }),
    make("span", {}, `${place + 1}/${all.length}`),
    signButton("›", word("later"), () => go(place + 1), { disabled: place === all.length - 1 }),
  );
}

/** What the branch has used of the context and of money, or what the coming answer has so far. */
function showRoom(coming = null) {
  const turns = shown(current).map((at) => current.messages[at]);
  const context = contexts[ui.model.value];
  const total = turns.findLast((message) => message.total)?.total ?? 0;
  const facts = [];
  if (coming) facts.push(`${count(coming.tokens)} ${word("tokens")}`, `${coming.pace().toFixed(1)} ${word("pace")}`);
  else if (context && total) facts.push(`${count(Math.max(context - total, 0))} ${word("left")}`);
  const paid = current.messages.filter((message) => message.cost);
  if (paid.length) facts.push(money(paid.reduce((sum, { cost }) => sum + cost, 0), paid[0].currency));
  ui.meter.hidden = !context || !total;
  if (context) ui.meter.value = Math.min(1, total / context);
  ui.facts.textContent = facts.join(" · ");
}

function redraw() {
  showChats();
  if (!answering) showLog();
}

// ---- doing

function open(chat) {
  answering?.stop();
  current = chat;
  menu(false);
  showChats();
  showLog();
}

function fresh() {
  open(newChat());
  ui.question.focus();
}

function remove(chat) {
  chats = chats.filter(({ id }) => id !== chat.id);
  keep();
  if (chat.id === current.id) fresh();
  else showChats();
}

function keep() {
  if (!save(localStorage, chats)) say(word("full"));
}

function edit(at) {
  const article = ui.log.children[shown(current).indexOf(at)];
  const area = make("textarea", { rows: 3, "aria-label": word("edit") });
  area.value = current.messages[at].content;
  const send = () => {
    const content = area.value.trim();
    if (content) question(add(current, { role: "user", content }, current.messages[at].parent));
  };
  const back = () => { showLog(); ui.question.focus(); };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
    if (event.key === "Escape") { event.stopPropagation(); back(); }
  });
  article.classList.add("editing");
  article.replaceChildren(area, make("div", { class: "acts" }, button("send", send), button("cancel", back)));
  area.focus();
}

/** Ask what the user wrote at `at`; the answer becomes its newest child. */
async function question(at) {
  answering?.stop();
  const chat = current;
  chat.leaf = at;
  chats = [chat, ...chats.filter(({ id }) => id !== chat.id)];
  keep();
  showChats();
  const turns = shown(chat).map((place) => chat.messages[place]);
  const mine = new Answering(ui.model.value, requestBody(ui.model.value, turns, settings()), ui.key.value);
  answering = mine;
  busy(true);
  showLog();
  const view = make("article", { class: "assistant", "aria-busy": "true", "aria-label": ui.model.value });
  ui.log.append(view);
  const message = await mine.run(view, ui.log, () => current === chat && answering === mine && showRoom(mine));
  charge(message);
  const watched = chat.leaf === at;
  const leaf = chat.leaf;
  add(chat, message, at);
  if (!watched) chat.leaf = leaf;
  if (chats.some(({ id }) => id === chat.id)) keep();
  if (answering !== mine) return;
  answering = null;
  busy(false);
  if (current === chat) showLog();
  if (document.activeElement === document.body && matchMedia("(pointer: fine)").matches) ui.question.focus();
  say(message.error ? "" : `${word("answered")}: ${count(message.tokens)} ${word("tokens")}`, true);
  findPrices();
}

/** What an answer cost, as far as the prices are known. */
function charge(message) {
  const { rates, models } = prices ?? {};
  if (!rates || message.hit === undefined) return;
  const machine = models[message.model]?.machine_cost_per_million_completion_tokens ?? 0;
  const cost = message.hit * rates.hit + message.miss * rates.miss + message.tokens * (rates.out + machine);
  if (cost > 0) Object.assign(message, { cost: cost / 1e6, currency: rates.currency });
}

function busy(is) {
  ui.send.hidden = is;
  ui.stop.hidden = !is;
  say("");
}

/** One line over the question; `aloud` only for who listens instead of looking. */
function say(text, aloud = false) {
  ui.status.classList.toggle("hidden", aloud || !text);
  ui.status.textContent = text;
}

function settings() {
  return Object.fromEntries(SETTINGS.map((name) => [name, byId(name).value]));
}

async function findModels() {
  try {
    const { data } = await get("/v1/models", ui.key.value);
    const chosen = ui.model.value || localStorage.getItem("smallpress.model");
    contexts = Object.fromEntries(data.map((model) => [model.id, model.max_model_len]));
    ui.model.replaceChildren(...data.map((model) => make("option", { value: model.id }, model.id)));
    if (data.some(({ id }) => id === chosen)) ui.model.value = chosen;
    const coming = data.filter(({ ready }) => ready === false);
    say(coming.length ? `${coming.map(({ id }) => id).join(", ")} ${word("loading")}` : "");
    if (coming.length) setTimeout(findModels, LOADING_MS);
    showRoom();
    findPrices();
  } catch (error) {
    say(error.message || word("lost"));
    if (error.status === 401) { ui.settings.open = true; ui.key.focus(); }
  }
}

async function findPrices() {
  try {
    prices = await get("/usage", ui.key.value);
  } catch {
    prices = null; // The chat goes on without them.
  }
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

async function importChats() {
  try {
    const found = checked(JSON.parse(await ui.file.files[0].text()));
    const ids = new Set(found.map(({ id }) => id));
    chats = [...found, ...chats.filter(({ id }) => !ids.has(id))];
    keep();
    open(chats.find(({ id }) => id === current.id) ?? current);
    say("");
  } catch {
    say(word("badFile"));
  }
  ui.file.value = "";
}

function menu(is) {
  ui.side.classList.toggle("shown", is);
  ui.menu.setAttribute("aria-expanded", String(is));
}

// ---- beginning

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const content = ui.question.value.trim();
    if (!content || answering) return;
    ui.question.value = "";
    question(add(current, { role: "user", content }, current.leaf));
  });
  ui.question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); byId("ask").requestSubmit(); }
    const last = shown(current).findLast((at) => current.messages[at].role === "user");
    if (event.key === "ArrowUp" && !ui.question.value && last !== undefined && !answering) { event.preventDefault(); edit(last); }
  });
  document.addEventListener("keydown", (event) => {
    const control = event.ctrlKey || event.metaKey;
    if (event.key === "Escape") { answering?.stop(); ui.settings.open = false; menu(false); }
    if (control && event.key === "k") { event.preventDefault(); ui.question.focus(); }
    if (control && event.shiftKey && event.key.toLowerCase() === "o") { event.preventDefault(); fresh(); }
  });
  document.addEventListener("pointerdown", ({ target }) => {
    if (!ui.settings.contains(target)) ui.settings.open = false;
    if (!ui.side.contains(target) && !ui.menu.contains(target)) menu(false);
  });
  ui.stop.addEventListener("click", () => { answering?.stop(); ui.question.focus(); });
  ui.menu.addEventListener("click", () => menu(!ui.side.classList.contains("shown")));
  byId("new").addEventListener("click", fresh);
  byId("export").addEventListener("click", () => download("smallpress-chats.json", "application/json", JSON.stringify(chats, null, 1)));
  byId("markdown").addEventListener("click", () => download("smallpress-chat.md", "text/markdown", asMarkdown(current)));
  byId("import").addEventListener("click", () => ui.file.click());
  ui.file.addEventListener("change", importChats);
  ui.model.addEventListener("change", () => { localStorage.setItem("smallpress.model", ui.model.value); showRoom(); });
  ui.key.addEventListener("change", () => { sessionStorage.setItem("smallpress.key", ui.key.value); findModels(); });
  for (const name of SETTINGS) {
    byId(name).value = localStorage.getItem(`smallpress.${name}`) ?? "";
    byId(name).addEventListener("change", () => localStorage.setItem(`smallpress.${name}`, byId(name).value));
  }
  byId("defaults").addEventListener("click", () => {
    for (const name of SETTINGS) { byId(name).value = ""; localStorage.removeItem(`smallpress.${name}`); }
  });
}

ui.key.value = sessionStorage.getItem("smallpress.key") ?? "";
dress(redraw);
listen();
if (chats.length) open(chats[0]);
else fresh();
findModels();
