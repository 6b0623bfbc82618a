// Markdown -> a tree of plain objects -> elements. Text only ever becomes text nodes: nothing a model writes is parsed as
// HTML. Pictures are shown as links, so that reading an answer makes no request.

import { pieces } from "./page_code.js";
import { math } from "./page_math.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const FORMULA = /^\s*(\$\$|\\\[|\\begin\{(?:align|equation|gather|multline|eqnarray)\*?\})/;
const CLOSING = { "$$": "$$", "\\[": "\\]" };

/** @returns {{tag: string, attrs?: object, children: Array}|string} */
function node(tag, children, attrs = {}) {
  return { tag, attrs, children };
}

/** The blocks of a text; an unfinished one (the text is still coming) is taken as far as it goes. */
export function parse(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

/** As `parse`; `starts` receives the line at which each block begins. */
export function blocks(lines, depth, starts = []) {
  const out = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    starts[out.length] = at;
    const fence = FENCE.exec(line);
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) at = code(lines, at, fence, out);
    else if (heading) { out.push(node(`h${Math.min(heading[1].length + 1, 6)}`, inline(heading[2]))); at += 1; }
    else if (/^ {0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) { out.push(node("hr", [])); at += 1; }
    else if (FORMULA.test(line)) at = formula(lines, at, out);
    else if (line.startsWith(">") && depth < 8) at = quote(lines, at, out, depth);
    else if (ITEM.test(line) && depth < 8) at = list(lines, at, out, depth);
    else if (line.includes("|") && /^[\s|:-]+$/.test(lines[at + 1] ?? "") && lines[at + 1].includes("-")) at = table(lines, at, out);
    else at = paragraph(lines, at, out);
  }
  return out;
}

function code(lines, at, fence, out) {
  const body = [];
  for (at += 1; at < lines.length && !lines[at].trim().startsWith(fence[1]); at += 1) body.push(lines[at]);
  const coloured = pieces(body.join("\n"), fence[2]).map(({ kind, text }) => (kind ? node("span", [text], { class: kind }) : text));
  out.push(node("pre", [node("code", coloured)], { "data-language": fence[2] }));
  return at + 1;
}

/** Display mathematics from its opening to its closing; without one, to the next empty line. */
function formula(lines, at, out) {
  const opening = FORMULA.exec(lines[at])[1];
  const closing = CLOSING[opening] ?? opening.replace("begin", "end");
  const start = lines[at].indexOf(opening) + opening.length;
  let body = lines[at].slice(start);
  let end = body.indexOf(closing);
  while (end < 0 && at + 1 < lines.length && (lines[at + 1].trim() || !body.trim())) {
    at += 1;
    body += `\n${lines[at]}`;
    end = body.indexOf(closing);
  }
  const inside = end < 0 ? body : body.slice(0, end);
  const after = end < 0 ? "" : body.slice(end + closing.length).trim();
  out.push(node("p", [display(opening in CLOSING ? inside : `${opening}${inside}${closing}`), ...inline(after)]));
  return at + 1;
}

function display(source) {
  return node("span", [math(source, true)], { class: "display" });
}

function quote(lines, at, out, depth) {
  const body = [];
  for (; at < lines.length && lines[at].startsWith(">"); at += 1) body.push(lines[at].replace(/^>\s?/, ""));
  out.push(node("blockquote", blocks(body, depth + 1)));
  return at;
}

function list(lines, at, out, depth) {
  const first = ITEM.exec(lines[at]);
  const indent = first[1].length;
  const ordered = first[3] !== undefined;
  const items = [];
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (match && match[1].length <= indent + 1) {
      if (match[1].length < indent || (match[3] !== undefined) !== ordered) break;
      items.push([match[4]]);
    } else if (/^\s+\S/.test(lines[at]) && lines[at].search(/\S/) > indent) {
      items.at(-1).push(lines[at].slice(Math.min(lines[at].search(/\S/), indent + 2)));
    } else if (lines[at].trim() || !ITEM.test(lines[at + 1] ?? "")) break;
    at += 1;
  }
  const children = items.map((body) => node("li", body.length > 1 ? tight(blocks(body, depth + 1)) : inline(body[0])));
  const start = ordered && first[3] !== "1" ? { start: first[3] } : {};
  out.push(node(ordered ? "ol" : "ul", children, start));
  return at;
}

/** An item's first paragraph without the element around it. */
function tight(children) {
  return children.flatMap((child, i) => (i === 0 && child.tag === "p" ? child.children : [child]));
}

function table(lines, at, out) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const head = node("tr", cells(lines[at]).map((cell) => node("th", inline(cell))));
  const body = [];
  for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) {
    body.push(node("tr", cells(lines[at]).map((cell) => node("td", inline(cell)))));
  }
  out.push(node("div", [node("table", [node("thead", [head]), node("tbody", body)])], { class: "wide" }));
  return at;
}

function paragraph(lines, at, out) {
  const body = [lines[at]];
  const ends = (line) => !line.trim() || FENCE.test(line) || /^#{1,6}\s/.test(line) || line.startsWith(">") || ITEM.test(line) || FORMULA.test(line);
  for (at += 1; at < lines.length && !ends(lines[at]); at += 1) body.push(lines[at]);
  out.push(node("p", inline(body.join("\n"))));
  return at;
}

const INLINE = [
  [/^`([^`]+)`/, (m) => node("code", [m[1]])],
  [/^\\\(([^]+?)\\\)/, (m) => math(m[1], false)],
  [/^\\\[([^]+?)\\\]/, (m) => display(m[1])],
  [/^\$\$([^$]+?)\$\$/, (m) => display(m[1])],
  [/^\$(?=\S)([^$\n]*?[^$\s\\])\$(?!\d)/, (m) => math(m[1], false)],
  [/^\*\*(?=\S)((?:[^*]|\*(?!\*))+?)\*\*/, (m, depth) => node("strong", inline(m[1], depth + 1))],
  [/^\*(?=\S)([^*\n]+?)\*/, (m, depth) => node("em", inline(m[1], depth + 1))],
  [/^~~(?=\S)([^~]+?)~~/, (m, depth) => node("del", inline(m[1], depth + 1))],
  [/^!?\[([^\]\n]*)\]\(\s*<?([^\s)>]+)>?(?:\s+"[^"]*")?\s*\)/, (m) => link(m[1] || m[2], m[2])],
  [/^<?(https?:\/\/[^\s<>)"']+[^\s<>)"'.,;:!?])>?/, (m) => link(m[1], m[1])],
];

function link(text, target) {
  return SAFE_LINK.test(target)
    ? node("a", [text], { href: target, rel: "noopener noreferrer nofollow", target: "_blank" })
    : text;
}

export function inline(text, depth = 0) {
  const out = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const special = depth < 8 && "`\\$*~![<h".includes(text[at]);
    const rest = special ? text.slice(at, at + 4096) : "";
    const found = special && INLINE.map(([pattern, make]) => [pattern.exec(rest), make]).find(([match]) => match);
    if (found) {
      if (plain) out.push(plain);
      plain = "";
      out.push(found[1](found[0], depth));
      at += found[0][0].length;
    } else if (text[at] === "\\" && /[\\`*_{}[\]()#+\-.!~$|<>]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  if (plain) out.push(plain);
  return out;
}

/** Elements for a parsed tree, made by `document`; only tags and attributes from this file occur. */
export function elements(tree, document) {
  return tree.map((item) => {
    if (typeof item === "string") return document.createTextNode(item);
    const element = item.tag.startsWith("m") ? document.createElementNS(MATHML, item.tag) : document.createElement(item.tag);
    for (const [name, value] of Object.entries(item.attrs)) if (value) element.setAttribute(name, value);
    element.append(...elements(item.children, document));
    return element;
  });
}
