// node tests/browser/markdown.test.mjs: the page's own logic, without a browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const folder = new URL("../../src/smallpress/server/", import.meta.url);
const load = (name) => import(`data:text/javascript;base64,${readFileSync(new URL(name, folder)).toString("base64")}`);
const { parse, inline } = await load("page_markdown.js");
const { EventReader, requestBody } = await load("page_stream.js");
const { asked, checked, title } = await load("page_history.js");
const { WORDS, firstLanguage } = await load("page_words.js");

const short = (item) => (typeof item === "string" ? item : `${item.tag}(${item.children.map(short).join("|")})`);
const read = (text) => parse(text).map(short).join(" ");

for (const [text, expected] of [
  ["# a\n\nb *c* **d**", "h2(a) p(b |em(c)| |strong(d))"],
  ["```py\nx < 1\n```\nafter", "pre(code(x < 1)) p(after)"],
  ["```\nnot ended", "pre(code(not ended))"],
  ["- a\n- b\n  - c", "ul(li(a)|li(b|ul(li(c))))"],
  ["3. a\n4. b", "ol(li(a)|li(b))"],
  ["> a\n> b", "blockquote(p(a\nb))"],
  ["|a|b|\n|-|-|\n|1|2|", "table(thead(tr(th(a)|th(b)))|tbody(tr(td(1)|td(2))))"],
  ["---", "hr()"],
  ["2 * 3 * 4 and a_b_c", "p(2 * 3 * 4 and a_b_c)"],
  ["costs $5 and $6", "p(costs $5 and $6)"],
  ["$x^2$ and \\(y\\)", "p(span($x^2$)| and |span(\\(y\\)))"],
  ["$$\nx\n$$\nafter", "p(span($$\nx\n$$)) p(after)"],
  ["<script>alert(1)</script>", "p(<script>alert(1)</script>)"],
  ["[a](https://b.c) ![d](https://e.f/g.png)", "p(a(a)| |a(d))"],
  ["[a](javascript:alert(1))", "p(a|))"],
  ["\\*no\\*", "p(*no*)"],
  ["", ""],
]) assert.equal(read(text), expected, text);

for (const start of ["javascript:", "data:text/html,", "JaVaScRiPt:", "vbscript:", "//evil", "file:///"]) {
  assert.ok(!JSON.stringify(inline(`[x](${start}y) ![x](${start}y) <${start}y>`)).includes('"href"'), start);
}
const long = ["*".repeat(20000), "[".repeat(20000), "> ".repeat(5000), "`".repeat(20001), "- ".repeat(5000), "$".repeat(20000)];
const began = performance.now();
for (const text of long) parse(text);
assert.ok(performance.now() - began < 5000, "hostile texts are read in time");

const reader = new EventReader();
assert.deepEqual(reader.push('data: {"a"'), []);
assert.deepEqual(reader.push(':1}\n\ndata: [DONE]\n'), ['{"a":1}']);
assert.deepEqual(reader.push("\n"), ["[DONE]"]);

const body = requestBody("m", [{ role: "user", content: "q", thinking: "t" }], { system: " s", temperature: "0", top_p: "", max_tokens: "7" });
assert.deepEqual(body.messages, [{ role: "system", content: " s" }, { role: "user", content: "q" }]);
assert.ok(body.temperature === 0 && body.max_tokens === 7 && !("top_p" in body));

assert.throws(() => checked({}), TypeError);
assert.throws(() => checked([{ messages: [{ role: "evil", content: "" }] }]), TypeError);
assert.deepEqual(checked([{ id: "1", messages: [{ role: "user", content: "q", onclick: "x" }] }])[0].messages, [{ role: "user", content: "q" }]);
assert.equal(title({ messages: [{ role: "user", content: "one\ntwo" }] }), "one");
const chat = { id: "1", messages: [{ role: "user", content: "a" }, { role: "assistant", content: "b" }] };
assert.deepEqual(asked(chat, 0, "c").messages, [{ role: "user", content: "c" }]);

assert.deepEqual(Object.keys(WORDS.en).sort(), Object.keys(WORDS.zh).sort());
assert.deepEqual([firstLanguage(null, "zh-CN"), firstLanguage("en", "zh-CN"), firstLanguage(null, "de")], ["zh", "en", "en"]);
console.log("ok");
