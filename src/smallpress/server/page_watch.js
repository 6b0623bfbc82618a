// The runs of a folder as they go on: a list at the side, the chosen one drawn again whenever its files change.

import { byId, count, dress, every, make, span, word } from "./page_look.js";
import { get, headers } from "./page_stream.js";

const EVERY_MS = 2000;
const key = () => sessionStorage.getItem("smallpress.key");
let runs = [];
let drawn = ""; // name and stamp of what is shown

const chosen = () => runs.find(({ name }) => name === decodeURIComponent(location.hash.slice(1))) ?? runs[0];

function showRuns() {
  const focused = document.activeElement?.closest?.("#runs a")?.hash;
  byId("runs").replaceChildren(...runs.map(listed));
  if (focused) [...byId("runs").querySelectorAll("a")].find(({ hash }) => hash === focused)?.focus();
}

function listed(run) {
  const current = run === chosen();
  const done = run.step === undefined ? "" : `${word("step")} ${count(run.step)}${run.steps ? ` / ${count(run.steps)}` : ""}`;
  return make("li", {},
    make("a", { class: `open ${run.state}`, href: `#${encodeURIComponent(run.name)}`, "aria-current": current ? "page" : null, onclick: () => menu(false) },
      make("b", {}, run.name),
      make("small", {}, [word(run.state === "waiting" ? "running" : run.state), done, left(run)].filter(Boolean).join(" · "))));
}

const left = ({ seconds_left: seconds }) => (seconds === null || seconds === undefined ? "" : `${span(seconds)} ${word("remaining")}`);

function showHead() {
  const run = chosen();
  byId("head").hidden = !run;
  say(run ? (run.problem ?? "") : word("noRuns"));
  if (!run) return;
  document.title = `${run.name}: smallpress`;
  byId("name").textContent = run.name;
  const facts = [word(run.state === "waiting" ? "running" : run.state)];
  if (run.step !== undefined) facts.push(run.step || run.state !== "waiting" ? `${word("step")} ${count(run.step)}${run.steps ? ` / ${count(run.steps)}` : ""}` : word("waiting"));
  if (run.share) facts.push(`${Math.round(100 * run.share)} %`);
  if (left(run)) facts.push(left(run));
  if (run.state === "quiet") facts.push(`${span(run.seconds_since)} ${word("ago")}`);
  byId("state").className = run.state;
  byId("state").textContent = facts.join(" · ");
  byId("share").hidden = typeof run.share !== "number";
  byId("share").value = run.share ?? 0;
  byId("alarms").hidden = !run.alarms?.length;
  byId("alarms").querySelector("ul").replaceChildren(...(run.alarms ?? []).map((alarm) => make("li", {}, alarm)));
}

/** The run as the server draws it; what was unfolded stays so. */
async function showReport() {
  const run = chosen();
  const wanted = run && !run.problem ? `${run.name} ${run.stamp}` : "";
  if (wanted === drawn) return;
  const same = drawn.split(" ")[0] === wanted.split(" ")[0];
  const report = byId("report");
  const open = [...report.querySelectorAll("details")].map((one) => one.open);
  const body = wanted ? await fetchBody(`/watch/run/${encodeURIComponent(run.name)}`) : null;
  if (run !== chosen()) return;
  report.replaceChildren(...(body ? [...document.importNode(body, true).childNodes] : []));
  if (same) report.querySelectorAll("details").forEach((one, at) => { one.open = open[at] ?? false; });
  else byId("main").scrollTop = 0;
  for (const wide of report.querySelectorAll(".chart, .scroll, pre")) {
    if (wide.scrollWidth > wide.clientWidth || wide.scrollHeight > wide.clientHeight) wide.tabIndex = 0;
  }
  drawn = wanted;
}

/** XMLHttpRequest reads HTML into a document that runs nothing; only text of our own server's drawing is asked for. */
function fetchBody(path) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", path);
    request.responseType = "document";
    for (const [name, value] of Object.entries(headers(key()))) request.setRequestHeader(name, value);
    request.onload = () => (request.status === 200 ? resolve(request.response.body) : reject(new Error(`HTTP ${request.status}`)));
    request.onerror = () => reject(new Error());
    request.send();
  });
}

function say(text) {
  byId("status").textContent = text;
  byId("status").hidden = !text;
}

function show() {
  showRuns();
  showHead();
}

async function refresh() {
  try {
    runs = await get("/watch/runs", key());
    byId("ask-key").hidden = true;
    show();
    await showReport();
  } catch (error) {
    say(error.message || word("lost"));
    if (error.status === 401) byId("ask-key").hidden = false;
  }
}

function menu(is) {
  byId("side").classList.toggle("shown", is);
  byId("menu").setAttribute("aria-expanded", String(is));
}

dress(show);
byId("menu").addEventListener("click", () => menu(!byId("side").classList.contains("shown")));
byId("main").addEventListener("pointerdown", ({ target }) => { if (target !== byId("menu")) menu(false); });
byId("key").addEventListener("change", () => { sessionStorage.setItem("smallpress.key", byId("key").value); refresh(); });
addEventListener("hashchange", () => { show(); showReport().catch(() => say(word("lost"))); });
addEventListener("keydown", ({ key: pressed }) => { if (pressed === "Escape") menu(false); });
every(EVERY_MS, refresh);
