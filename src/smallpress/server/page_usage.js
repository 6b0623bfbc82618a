// Tokens by key and model, and what a million tokens of answers cost here beside what services ask.

import { byId, count, dress, every, make, money, word } from "./page_look.js";
import { get } from "./page_stream.js";

const EVERY_MS = 5000;
const COUNTS = ["prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "completion_tokens", "reasoning_tokens"];
const hour = byId("hour");
let report = null;

function show() {
  if (!report) return;
  byId("currency").textContent = report.rates.currency;
  showRows();
  showPrices();
}

function showRows() {
  const names = ["keyName", "model", "requests", "hit", "miss", "completion", "reasoning", "energy", "cost"];
  const head = make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, word(name)))));
  const rows = report.rows.map(({ key, model, tokens, kwh, cost }) =>
    make("tr", {}, make("td", {}, key), make("td", {}, model), make("td", {}, count(tokens.requests)),
      ...COUNTS.map((name) => make("td", {}, count(tokens[name]))),
      make("td", {}, kwh.toPrecision(3)), make("td", {}, money(cost, report.rates.currency))));
  if (!rows.length) rows.push(make("tr", {}, make("td", { colspan: names.length, class: "soft" }, word("noUse"))));
  byId("rows").replaceChildren(head, make("tbody", {}, ...rows));
}

/** A bar for each model here that has answered, and for each service, the dearest the longest. */
function showPrices() {
  const { currency, out } = report.rates;
  const paid = Number.parseFloat(hour.value) || 0;
  const own = Object.entries(report.models).flatMap(([name, { completion_tokens_per_second: pace }]) =>
    pace > 0 ? [{ name: `${name}, ${word("here")}`, price: out + (1e6 / pace / 3600) * paid, pace }] : []);
  const services = currency === "USD" ? Object.entries(report.published_per_million) : [];
  const others = services.map(([name, prices]) => ({ name, price: prices.out }));
  const bars = [...own, ...others].sort((a, b) => a.price - b.price);
  const most = Math.max(...bars.map(({ price }) => price), 1e-9);
  byId("bars").tBodies[0].replaceChildren(...bars.map((bar) => priceBar(bar, most, currency, others)));
}

function priceBar({ name, price, pace }, most, currency, others) {
  const notes = pace ? [`${pace.toFixed(1)} ${word("pace")}`, ...(price > 0 ? others.map((other) => beside(price, other)) : [])] : [];
  return make("tr", { class: pace ? "own" : null },
    make("th", { scope: "row" }, name, ...notes.map((note) => make("small", {}, note))),
    make("td", {}, make("progress", { max: most, value: price, "aria-label": name })),
    make("td", { class: "price" }, money(price, currency)));
}

function beside(price, other) {
  const ratio = other.price / price;
  return `${(ratio >= 1 ? ratio : 1 / ratio).toFixed(1)} ${word(ratio >= 1 ? "cheaper" : "dearer")} ${other.name.split(",")[0]}`;
}

async function refresh() {
  const status = byId("status");
  try {
    report = await get("/usage", sessionStorage.getItem("smallpress.key"));
    if (!hour.value) hour.value = report.rates.machine_hour || localStorage.getItem("smallpress.hour") || "";
    status.hidden = true;
    show();
  } catch (error) {
    status.hidden = false;
    status.textContent = error.message || word("lost");
  }
}

dress(show);
hour.addEventListener("input", () => { localStorage.setItem("smallpress.hour", hour.value); show(); });
every(EVERY_MS, refresh);
