// Code -> pieces with a kind each: comment, string, number, keyword, call. One pass, whatever the text.

const WORDS = {
  python: "and as assert async await break case class continue def del elif else except False finally for from global if " +
    "import in is lambda match None nonlocal not or pass raise return self True try while with yield",
  js: "async await break case catch class const continue default delete do else export extends false finally for from " +
    "function if import in instanceof interface let new null of return static super switch this throw true try type " +
    "typeof undefined var void while yield",
  c: "alignas auto bool break case catch char class const constexpr continue default delete do double else enum extern " +
    "false final float fn for func go goto if impl import include inline int interface let long map match mod mut namespace " +
    "new nil null nullptr package private protected public pub range return short signed sizeof static struct super " +
    "switch template this throw trait true try type typedef typename union unsigned use using var virtual void volatile while",
  shell: "case do done elif else esac exit export fi for function if in local return set then unset until while",
  sql: "all alter and as asc between by case create delete desc distinct drop else end exists from full group having in " +
    "index inner insert into is join key left like limit not null offset on or order outer primary right select set table " +
    "then union unique update values view when where with",
  json: "false null true",
};
const ALIASES = {
  py: "python", python3: "python", javascript: "js", ts: "js", typescript: "js", jsx: "js", tsx: "js", mjs: "js", cpp: "c",
  "c++": "c", h: "c", hpp: "c", rust: "c", rs: "c", go: "c", java: "c", csharp: "c", "c#": "c", cs: "c", swift: "c", kotlin: "c",
  cuda: "c", sh: "shell", bash: "shell", zsh: "shell", console: "shell", toml: "python", yaml: "python", yml: "python",
};
const STRING = String.raw`"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?`;
const END = "(?![^])"; // of the text; $ is that of a line here
const SLASHES = String.raw`\/\/.*|\/\*[^]*?(?:\*\/|${END})`;
const GRAMMARS = {
  python: ["#.*", String.raw`"""[^]*?(?:"""|${END})|'''[^]*?(?:'''|${END})|${STRING}`],
  js: [SLASHES, String.raw`${STRING}|\x60(?:[^\x60\\]|\\[^])*\x60?`],
  c: [SLASHES, STRING],
  shell: [String.raw`(?<=^|\s)#.*`, STRING],
  sql: [String.raw`--.*|\/\*[^]*?(?:\*\/|${END})`, STRING],
  json: ["(?!)", STRING],
};
const NUMBER = String.raw`\b(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b`;
const LONGEST = 100_000;

const KEYWORDS = Object.fromEntries(Object.entries(WORDS).map(([name, words]) => [name, new Set(words.split(" "))]));
const PATTERNS = Object.fromEntries(
  Object.entries(GRAMMARS).map(([name, [comment, string]]) => [
    name,
    new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<number>${NUMBER})|(?<name>[A-Za-z_][\\w]*)`, "gm"),
  ]),
);

/** @returns {Array<{kind: string|null, text: string}>} whose texts, joined, are the code */
export function pieces(code, language) {
  const lower = language.toLowerCase();
  const grammar = Object.hasOwn(ALIASES, lower) ? ALIASES[lower] : lower;
  if (!Object.hasOwn(GRAMMARS, grammar) || code.length > LONGEST) return code ? [{ kind: null, text: code }] : [];
  const out = [];
  let at = 0;
  for (const match of code.matchAll(PATTERNS[grammar])) {
    const kind = kindOf(match, code, KEYWORDS[grammar], grammar === "sql");
    if (!kind) continue;
    if (match.index > at) out.push({ kind: null, text: code.slice(at, match.index) });
    out.push({ kind, text: match[0] });
    at = match.index + match[0].length;
  }
  if (at < code.length) out.push({ kind: null, text: code.slice(at) });
  return out;
}

function kindOf(match, code, keywords, anyCase) {
  const { comment, string, number, name } = match.groups;
  if (comment) return "comment";
  if (string) return "string";
  if (number) return "number";
  if (keywords.has(anyCase ? name.toLowerCase() : name)) return "keyword";
  return code[match.index + name.length] === "(" ? "call" : null;
}
