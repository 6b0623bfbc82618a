// What all pages share: making elements, the language, light and dark.

import { WORDS, firstLanguage } from "./page_words.js";

export const byId = (id) => document.getElementById(id);
export let language = firstLanguage(localStorage.getItem("smallpress.language"), navigator.language);
export const word = (name) => WORDS[language][name];

/** An element; attributes `on...` are listeners, false and null are left out, true is an empty one. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const button = (name, act, more = {}) => make("button", { type: "button", onclick: act, ...more }, word(name));

/** A button that shows a sign and is called by a word. */
export const signButton = (sign, label, act, more = {}) =>
  make("button", { type: "button", class: "sign", "aria-label": label, title: label, onclick: act, ...more }, sign);

export const count = (n) => new Intl.NumberFormat(language).format(n);

/** An amount with two digits that say something. */
export const money = (amount, currency) =>
  new Intl.NumberFormat(language, { style: "currency", currency, currencyDisplay: "narrowSymbol",
    ...(amount >= 1 || amount === 0 ? {} : { maximumSignificantDigits: 2 }) }).format(amount);

/** Seconds in the one or two units that matter. */
export function span(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min` : `${Math.round(seconds)} s`;
}

function showWords() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", word(element.dataset.label));
    if (element.tagName === "BUTTON") element.title = word(element.dataset.label);
  }
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = word(element.dataset.hint);
  byId("language").textContent = WORDS[language === "en" ? "zh" : "en"].name;
}

function showTheme() {
  const chosen = localStorage.getItem("smallpress.theme");
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("light", !dark);
  return dark;
}

/** Set the words and colours, and the two buttons that change them; `redraw` shows what a page drew in words itself. */
export function dress(redraw) {
  showWords();
  showTheme();
  byId("theme").addEventListener("click", () => {
    localStorage.setItem("smallpress.theme", showTheme() ? "light" : "dark");
    showTheme();
  });
  byId("language").addEventListener("click", () => {
    language = language === "en" ? "zh" : "en";
    localStorage.setItem("smallpress.language", language);
    showWords();
    redraw();
  });
}

/** Does `work` now and then every `ms` milliseconds, while somebody looks. */
export function every(ms, work) {
  let timer = 0;
  const run = async () => {
    clearTimeout(timer);
    await work();
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(run, ms);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
  run();
}
