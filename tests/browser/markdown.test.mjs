// node tests/browser/markdown.test.mjs: the page's own logic, without a browser.
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const source = fileURLToPath(new URL("../../src/smallpress/server/", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "page-"));
process.on("exit", () => rmSync(folder, { recursive: true }));
for (const name of readdirSync(source)) if (name.endsWith(".js")) cpSync(join(source, name), join(folder, name));
writeFileSync(join(folder, "package.json"), '{"type": "module"}');
const load = (name) => import(pathToFileURL(join(folder, name)));
const { parse, inline } = await load("page_markdown.js");
const { math } = await load("page_math.js");
const { pieces } = await load("page_code.js");
const { EventReader, requestBody } = await load("page_stream.js");
const { add, asMarkdown, checked, choose, shown, siblings, title } = await load("page_history.js");
const { WORDS, firstLanguage } = await load("page_words.js");

const short = (item) => (typeof item === "string" ? item : `${item.tag}(${item.children.map(short).join("|")})`);
const read = (text) => parse(text).map(short).join(" ");

for (const [text, expected] of [
  ["# a\n\nb *c* **d**", "h2(a) p(b |em(c)| |strong(d))"],
  ["```py\nx < 1\n```\nafter", "pre(code(x < |span(1))) p(after)"],
  ["```\nnot ended", "pre(code(not ended))"],
  ["- a\n- b\n  - c", "ul(li(a)|li(b|ul(li(c))))"],
  ["3. a\n4. b", "ol(li(a)|li(b))"],
  ["> a\n> b", "blockquote(p(a\nb))"],
  ["|a|b|\n|-|-|\n|1|2|", "div(table(thead(tr(th(a)|th(b)))|tbody(tr(td(1)|td(2)))))"],
  ["**a *b* c**", "p(strong(a |em(b)| c))"],
  ["---", "hr()"],
  ["2 * 3 * 4 and a_b_c", "p(2 * 3 * 4 and a_b_c)"],
  ["costs $5 and $6", "p(costs $5 and $6)"],
  ["$x$ and \\(y\\)", "p(math(mrow(mi(x)))| and |math(mrow(mi(y))))"],
  ["$$\nx\n$$\nafter", "p(span(math(mrow(mi(x))))) p(after)"],
  ["\\[x\\]", "p(span(math(mrow(mi(x)))))"],
  ["so\n$$x", "p(so) p(span(math(mrow(mi(x)))))"],
  ["\\begin{align}x\\end{align}", "p(span(math(mrow(mtable(mtr(mtd(mi(x))))))))"],
  ["<script>alert(1)</script>", "p(<script>alert(1)</script>)"],
  ["[a](https://b.c) ![d](https://e.f/g.png)", "p(a(a)| |a(d))"],
  ["[a](javascript:alert(1))", "p(a|))"],
  ["\\*no\\*", "p(*no*)"],
  ["", ""],
]) assert.equal(read(text), expected, text);

for (const start of ["javascript:", "data:text/html,", "JaVaScRiPt:", "vbscript:", "//evil", "file:///"]) {
  assert.ok(!JSON.stringify(inline(`[x](${start}y) ![x](${start}y) <${start}y>`)).includes('"href"'), start);
}
for (const [text, expected] of [
  ["x^2", "msup(mi(x)|mn(2))"],
  ["x_i'", "msubsup(mi(x)|mi(i)|mo(′))"],
  ["\\frac{1}{2}", "mfrac(mn(1)|mn(2))"],
  ["\\frac12", "mfrac(mn(1)|mn(2))"],
  ["\\sqrt[3]{x}", "mroot(mi(x)|mtext(3))"],
  ["\\sum_{i=1}^n i", "munderover(mo(∑)|mrow(mi(i)|mo(=)|mn(1))|mi(n)) mi(i)"],
  ["\\left(\\frac a b\\right)", "mrow(mo(()|mfrac(mi(a)|mi(b))|mo()))"],
  ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "mrow(mo(()|mtable(mtr(mtd(mn(1))|mtd(mn(2)))|mtr(mtd(mn(3))|mtd(mn(4))))|mo()))"],
  ["\\mathbb{R}\\mathbf{x1}", "mi(ℝ) mi(𝐱𝟏)"],
  ["\\text{if } x", "mtext(if\u00a0) mi(x)"],
  ["\\boxed{42}", "mrow(mn(42))"],
  ["\\vec{v}", "mover(mi(v)|mo(→))"],
  ["1{,}000 \\%", "mn(1) mo(,) mn(000) mi(%)"],
  ["\\unheard{x}", "mtext(\\unheard) mi(x)"],
  ["\\href{javascript:x}{y}", "mtext(\\href) mrow(mi(j)|mi(a)|mi(v)|mi(a)|mi(s)|mi(c)|mi(r)|mi(i)|mi(p)|mi(t)|mo(:)|mi(x)) mi(y)"],
  ["\\constructor \\toString", "mtext(\\constructor) mtext(\\toString)"],
  ["}x\\end{a}", "mtext(}) mi(x) mtext(\\end) mi(a)"],
]) assert.equal(math(text, false).children[0].children.map(short).join(" "), expected, text);
assert.deepEqual(math("x", true).attrs, { display: "block" });

const kinds = (code, language) => pieces(code, language).map(({ kind, text }) => (kind ? `${kind}:${text}` : text)).join("|");
assert.equal(kinds("def f(x): return 'a' # b", "python"), "keyword:def| |call:f|(x): |keyword:return| |string:'a'| |comment:# b");
assert.equal(kinds("if (a /* b */) 0x1f", "cpp"), "keyword:if| (a |comment:/* b */|) |number:0x1f");
assert.equal(kinds('"""a\n\nb"""\n1', "py"), 'string:"""a\n\nb"""|\n|number:1');
assert.equal(kinds("/* a\nb", "js"), "comment:/* a\nb");
assert.equal(kinds('{"a": true}', "json"), '{|string:"a"|: |keyword:true|}');
assert.equal(kinds("echo $x # y", "bash"), "echo $x |comment:# y");
assert.equal(kinds("if constructor", "constructor"), "if constructor");

class Element {
  static made = 0;
  constructor(tag) { this.tag = tag; this.childNodes = []; Element.made += 1; }
  setAttribute() {}
  append(...nodes) { for (const node of nodes) { node.parent = this; this.childNodes.push(node); } }
  get lastChild() { const last = this.childNodes.at(-1); return { remove: () => this.childNodes.splice(this.childNodes.indexOf(last), 1) }; }
  get html() { return this.childNodes.map((node) => node.html ?? node.text).join("|") + `</${this.tag}>`; }
}
globalThis.document = { createElement: (tag) => new Element(tag), createElementNS: (_, tag) => new Element(tag), createTextNode: (text) => ({ text }) };
const { Flow } = await load("page_flow.js");
const { elements } = await load("page_markdown.js");
const whole = "# a\n\nb\r\nc\n\n- d\n- e\n\n1. f\n2. g\n   h\n\n```py\n\nx\n\n```\n$$\ny\n\n$$\n\n|a|b|\n|-|-|\n|1|2|\n\n> q\n\n---\nend";
for (let step = 1; step < 5; step += 1) {
  const view = new Element("div");
  const flow = new Flow(view);
  for (let end = step; end <= whole.length + step; end += step) flow.show(whole.slice(0, end));
  const [grown, once] = [view, new Element("div")];
  once.append(...elements(parse(whole), document));
  assert.equal(grown.html, once.html, `in steps of ${step}`);
}

const words = Array.from({ length: 10_000 }, (_, i) => (i % 10 === 9 ? "end.\n\n" : "word "));
const page = new Flow(new Element("div"));
Element.made = 0;
words.reduce((text, word) => { page.show(text + word); return text + word; }, "");
assert.ok(Element.made < 3 * words.length, `each word draws the last paragraphs only: ${Element.made} elements`);

const long = [
  ...["*", "[", "> ", "`", "- ", "$", "$$", "\\(", "\\[", "**a", "| a |\n|-|\n", "<", "1. "].map((piece) => piece.repeat(8000)),
  ...["{", "\\frac", "\\left(", "x^", "\\begin{pmatrix}", "\\sqrt[", "\\text{", "}", "&"].map((piece) => `$$${piece.repeat(5000)}$$`),
  ...['"', "'", "/*", '"""', "\\", "0x", "a("].map((piece) => `\`\`\`py\n${piece.repeat(8000)}`),
];
for (const text of long) {
  const began = process.cpuUsage();
  parse(text);
  assert.ok(process.cpuUsage(began).user < 1e6, `read in time: ${text.slice(0, 9)}`);
}

const reader = new EventReader();
assert.deepEqual(reader.push('data: {"a"'), []);
assert.deepEqual(reader.push(':1}\n\ndata: [DONE]\n'), ['{"a":1}']);
assert.deepEqual(reader.push("\n"), ["[DONE]"]);

const body = requestBody("m", [{ role: "user", content: "q", thinking: "t" }], { system: " s", temperature: "0", top_p: "", max_tokens: "7" });
assert.deepEqual(body.messages, [{ role: "system", content: " s" }, { role: "user", content: "q" }]);
assert.ok(body.temperature === 0 && body.max_tokens === 7 && !("top_p" in body));

assert.throws(() => checked({}), TypeError);
assert.throws(() => checked([{ messages: [{ role: "evil", content: "" }] }]), TypeError);
const raw = [{ id: "1", messages: [{ role: "user", content: "q", onclick: "x" }, { role: "assistant", content: "a", parent: 7, cost: "1" }] }];
assert.deepEqual(checked(raw)[0], {
  id: "1", messages: [{ role: "user", content: "q", parent: -1 }, { role: "assistant", content: "a", parent: 0 }], leaf: 1,
});
assert.equal(title({ messages: [{ role: "user", content: "one\ntwo" }] }), "one");

const chat = { id: "1", messages: [], leaf: -1 };
const say = (role, content, parent) => add(chat, { role, content }, parent);
const asked = say("user", "2 + 2?", -1);
const first = say("assistant", "4", asked);
say("user", "sure?", first);
const second = say("assistant", "four", asked);
assert.deepEqual([shown(chat), siblings(chat, second), siblings(chat, asked)], [[0, 3], [1, 3], [0]]);
choose(chat, first);
assert.deepEqual(shown(chat), [0, 1, 2]);
const edited = say("user", "2 + 3?", -1);
assert.deepEqual([shown(chat), siblings(chat, asked)], [[edited], [asked, edited]]);
choose(chat, asked);
assert.equal(asMarkdown(chat), "## Question\n\n2 + 2?\n\n## Answer\n\nfour\n");
assert.deepEqual(checked(JSON.parse(JSON.stringify([chat])))[0], chat);

assert.deepEqual(Object.keys(WORDS.en).sort(), Object.keys(WORDS.zh).sort());
assert.deepEqual([firstLanguage(null, "zh-CN"), firstLanguage("en", "zh-CN"), firstLanguage(null, "de")], ["zh", "en", "en"]);
console.log("ok");
