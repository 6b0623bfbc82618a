// LaTeX as language models write it -> a tree of MathML. What is not known stands there as it was written.

const NAMES = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ϵ", varepsilon: "ε", zeta: "ζ", eta: "η", theta: "θ",
  vartheta: "ϑ", iota: "ι", kappa: "κ", lambda: "λ", mu: "μ", nu: "ν", xi: "ξ", pi: "π", varpi: "ϖ", rho: "ρ",
  varrho: "ϱ", sigma: "σ", varsigma: "ς", tau: "τ", upsilon: "υ", phi: "ϕ", varphi: "φ", chi: "χ", psi: "ψ", omega: "ω",
  Gamma: "Γ", Delta: "Δ", Theta: "Θ", Lambda: "Λ", Xi: "Ξ", Pi: "Π", Sigma: "Σ", Upsilon: "Υ", Phi: "Φ", Psi: "Ψ",
  Omega: "Ω", infty: "∞", partial: "∂", nabla: "∇", hbar: "ℏ", ell: "ℓ", Re: "ℜ", Im: "ℑ", aleph: "ℵ", emptyset: "∅",
  varnothing: "∅", angle: "∠", triangle: "△", degree: "°", ldots: "…", dots: "…", cdots: "⋯", dotsc: "…", dotsb: "⋯",
  vdots: "⋮", ddots: "⋱", checkmark: "✓", top: "⊤", bot: "⊥", square: "□", blacksquare: "■", star: "⋆", imath: "ı",
  jmath: "ȷ", "%": "%", "$": "$", "#": "#", "&": "&", "_": "_",
};
const SIGNS = {
  times: "×", cdot: "⋅", div: "÷", pm: "±", mp: "∓", ast: "∗", circ: "∘", bullet: "∙", oplus: "⊕", otimes: "⊗", odot: "⊙",
  le: "≤", leq: "≤", leqslant: "⩽", ge: "≥", geq: "≥", geqslant: "⩾", ne: "≠", neq: "≠", equiv: "≡", approx: "≈", sim: "∼",
  simeq: "≃", cong: "≅", propto: "∝", ll: "≪", gg: "≫", lt: "<", gt: ">", prec: "≺", succ: "≻", in: "∈", notin: "∉",
  ni: "∋", subset: "⊂", subseteq: "⊆", supset: "⊃", supseteq: "⊇", cup: "∪", cap: "∩", setminus: "∖", land: "∧", wedge: "∧",
  lor: "∨", vee: "∨", lnot: "¬", neg: "¬", forall: "∀", exists: "∃", nexists: "∄", to: "→", rightarrow: "→", gets: "←",
  leftarrow: "←", leftrightarrow: "↔", Rightarrow: "⇒", implies: "⟹", Leftarrow: "⇐", Leftrightarrow: "⇔", iff: "⟺",
  longrightarrow: "⟶", longleftarrow: "⟵", Longrightarrow: "⟹", mapsto: "↦", uparrow: "↑", downarrow: "↓", mid: "∣",
  nmid: "∤", parallel: "∥", perp: "⊥", therefore: "∴", because: "∵", colon: ":", models: "⊨", vdash: "⊢", backslash: "∖",
};
const FENCES = {
  lbrace: "{", rbrace: "}", "{": "{", "}": "}", langle: "⟨", rangle: "⟩", lfloor: "⌊", rfloor: "⌋", lceil: "⌈", rceil: "⌉",
  vert: "|", lvert: "|", rvert: "|", "|": "‖", Vert: "‖", lVert: "‖", rVert: "‖", lbrack: "[", rbrack: "]",
};
const BIG = {
  sum: "∑", prod: "∏", coprod: "∐", bigcup: "⋃", bigcap: "⋂", bigoplus: "⨁", bigotimes: "⨂", bigvee: "⋁", bigwedge: "⋀",
};
const INTEGRALS = { int: "∫", iint: "∬", iiint: "∭", oint: "∮" };
const FUNCTIONS = new Set(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp deg dim ker hom arg gcd lcm Pr".split(" "),
);
const LIMITS = { lim: "lim", max: "max", min: "min", sup: "sup", inf: "inf", det: "det", limsup: "lim sup", liminf: "lim inf" };
const OVER = {
  hat: "^", widehat: "^", bar: "¯", overline: "¯", vec: "→", overrightarrow: "→", tilde: "~", widetilde: "~", dot: "˙",
  ddot: "¨", check: "ˇ", overbrace: "⏞",
};
const UNDER = { underline: "_", underbrace: "⏟" };
const SPACES = { ",": 0.17, ":": 0.22, ">": 0.22, ";": 0.28, "!": -0.17, " ": 0.25, quad: 1, qquad: 2, enspace: 0.5, thinspace: 0.17 };
const ALPHABETS = { mathbb: [0x1d538, 0x1d552, 0x1d7d8], mathbf: [0x1d400, 0x1d41a, 0x1d7ce], boldsymbol: [0x1d400, 0x1d41a, 0x1d7ce],
  bm: [0x1d400, 0x1d41a, 0x1d7ce], mathcal: [0x1d49c, 0x1d4b6, 0], mathscr: [0x1d49c, 0x1d4b6, 0], mathfrak: [0x1d504, 0x1d51e, 0],
  mathsf: [0x1d5a0, 0x1d5ba, 0x1d7e2], mathtt: [0x1d670, 0x1d68a, 0x1d7f6] };
/** Letters that Unicode had before it had the alphabets. */
const ELSEWHERE = {
  mathbb: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" },
  mathcal: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
  mathfrak: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
};
const TEXTS = new Set("text textrm textbf textit texttt textsf mbox mathrm mathit operatorname operatorname*".split(" "));
const SILENT = new Set("displaystyle textstyle scriptstyle limits nolimits nonumber notag hfill centering".split(" "));
const SIZES = /^(?:big|Big|bigg|Bigg)[lrm]?$/;
const AROUND = { pmatrix: "()", bmatrix: "[]", vmatrix: "||", Vmatrix: "‖‖", Bmatrix: "{}", cases: "{", rcases: " }" };
const DEEPEST = 40;

const node = (tag, children, attrs = {}) => ({ tag, attrs, children });
const row = (children) => (children.length === 1 ? children[0] : node("mrow", children));
const sign = (text, attrs = {}) => node("mo", [text], attrs);

/** A `math` element for LaTeX without its dollar signs; `display` stands on a line of its own. */
export function math(source, display) {
  const reader = new Reader(source.slice(0, 20_000));
  const children = [];
  while (!reader.ended) {
    children.push(...list(reader, () => false, 0));
    if (!reader.ended) children.push(node("mtext", [reader.next()])); // A brace or an \end too many.
  }
  return node("math", [node("mrow", children)], display ? { display: "block" } : {});
}

class Reader {
  constructor(source) {
    this.tokens = source.match(/\\(?:[a-zA-Z]+\*?|[^])|\d+(?:[.,]\d+)*|\s+|[^]/gu) ?? [];
    this.at = 0;
  }
  get ended() { return this.at >= this.tokens.length; }
  get token() { return this.tokens[this.at] ?? ""; }
  next() { return this.tokens[this.at++] ?? ""; }
  skipSpace() { while (/^\s/.test(this.token)) this.at += 1; }
  /** The first digit of a number: without braces an argument is no longer than that. */
  digit() {
    const token = this.token;
    this.tokens[this.at] = token.slice(1);
    return token[0];
  }
  /** The text in braces as it stands, or one token. */
  raw() {
    this.skipSpace();
    if (this.token !== "{") return this.next();
    let depth = 0, out = "";
    while (!this.ended) {
      const token = this.next();
      if (token === "}" && --depth === 0) break;
      if (token !== "{" || depth++ > 0) out += token;
    }
    return out;
  }
  /** The text in brackets, where there are any. */
  option() {
    this.skipSpace();
    if (this.token !== "[") return null;
    const start = ++this.at;
    while (!this.ended && this.token !== "]") this.at += 1;
    return this.tokens.slice(start, this.at++).join("");
  }
}

const CLOSERS = new Set(["}", "\\right", "\\end", "&", "\\\\", "\\cr"]);

function list(reader, ends, depth) {
  const out = [];
  for (;;) {
    reader.skipSpace();
    if (reader.ended || CLOSERS.has(reader.token) || ends(reader.token)) return out;
    out.push(scripted(reader, depth));
  }
}

function scripted(reader, depth) {
  let base = "_^'".includes(reader.token) ? node("mrow", []) : atom(reader, depth);
  let below = null, above = null;
  for (;;) {
    reader.skipSpace();
    if (reader.token === "\\limits" || reader.token === "\\nolimits") reader.next();
    else if (reader.token === "_" && !below) { reader.next(); below = argument(reader, depth); }
    else if (reader.token === "^" && !above) { reader.next(); above = argument(reader, depth); }
    else if (reader.token === "'" && !above) {
      let primes = "";
      while (reader.token === "'") { reader.next(); primes += "′"; }
      above = sign(primes);
    } else break;
  }
  const stacked = base.limits;
  delete base.limits;
  const tags = stacked ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
  if (below && above) return node(tags[2], [base, below, above]);
  if (below) return node(tags[0], [base, below]);
  if (above) return node(tags[1], [base, above]);
  return base;
}

function argument(reader, depth) {
  reader.skipSpace();
  if (reader.ended || CLOSERS.has(reader.token)) return node("mrow", []);
  if (/^\d./.test(reader.token)) return node("mn", [reader.digit()]);
  return atom(reader, depth);
}

function atom(reader, depth) {
  const token = reader.next();
  if (depth > DEEPEST) return node("mtext", [token]);
  if (token === "{") {
    const inside = list(reader, () => false, depth + 1);
    while (!reader.ended && reader.token !== "}") inside.push(node("mtext", [reader.next()]));
    reader.next();
    return row(inside);
  }
  if (token.length > 1 && token.startsWith("\\")) return command(reader, token.slice(1), depth + 1);
  if (/^\d/.test(token)) return node("mn", [token]);
  if (/^\p{L}$/u.test(token)) return node(/^[a-zA-Z\u0370-\u03ff]$/.test(token) ? "mi" : "mtext", [token]);
  if ("()[]|/".includes(token)) return sign(token, { stretchy: "false" });
  return sign({ "-": "−", "*": "∗", "~": "\u00a0" }[token] ?? token);
}

function command(reader, name, depth) {
  const one = () => argument(reader, depth);
  if (Object.hasOwn(NAMES, name)) return node("mi", [NAMES[name]], /^[α-ω]/.test(NAMES[name]) ? {} : { mathvariant: "normal" });
  if (Object.hasOwn(SIGNS, name)) return sign(SIGNS[name]);
  if (Object.hasOwn(FENCES, name)) return sign(FENCES[name], { stretchy: "false" });
  if (Object.hasOwn(BIG, name)) return { ...sign(BIG[name], { movablelimits: "true" }), limits: true };
  if (Object.hasOwn(INTEGRALS, name)) return sign(INTEGRALS[name]);
  if (Object.hasOwn(LIMITS, name)) return { ...sign(LIMITS[name], { movablelimits: "true" }), limits: true };
  if (FUNCTIONS.has(name)) return node("mrow", [node("mi", [name]), node("mspace", [], { width: "0.1em" })]);
  if (Object.hasOwn(OVER, name)) return { ...node("mover", [one(), sign(OVER[name])], { accent: "true" }), limits: name === "overbrace" };
  if (Object.hasOwn(UNDER, name)) return { ...node("munder", [one(), sign(UNDER[name])]), limits: name === "underbrace" };
  if (Object.hasOwn(SPACES, name)) return node("mspace", [], { width: `${SPACES[name]}em` });
  if (Object.hasOwn(ALPHABETS, name)) return lettered(name, reader.raw());
  if (TEXTS.has(name)) return node("mtext", [reader.raw().replace(/\\(?=[\s#$%&_{}])/g, "").replace(/^ | $/g, "\u00a0")]);
  if (SILENT.has(name)) return node("mrow", []);
  if (SIZES.test(name)) return sign(fence(reader));
  switch (name) {
    case "frac": case "tfrac": case "dfrac": case "cfrac": return node("mfrac", [one(), one()]);
    case "binom": case "dbinom": return row([sign("("), node("mfrac", [one(), one()], { linethickness: "0" }), sign(")")]);
    case "sqrt": return root(reader, depth);
    case "left": return fenced(reader, depth);
    case "begin": return environment(reader, depth);
    case "boxed": case "fbox": return node("mrow", [one()], { class: "boxed" });
    case "overset": case "stackrel": return node("mover", [one(), one()].reverse());
    case "underset": return node("munder", [one(), one()].reverse());
    case "xrightarrow": return node("mover", [sign("→"), one()]);
    case "substack": return one();
    case "not": return negated(one());
    case "pmod": return row([sign("(", { stretchy: "false" }), node("mtext", ["mod\u00a0"]), one(), sign(")", { stretchy: "false" })]);
    case "bmod": case "mod": return node("mtext", ["\u00a0mod\u00a0"]);
    case "tag": return node("mtext", [`\u2003(${reader.raw()})`]);
    case "label": case "color": reader.raw(); return node("mrow", []);
    case "textcolor": reader.raw(); return one();
    case "phantom": return node("mphantom", [one()]);
    case "middle": return sign(fence(reader), { stretchy: "true" });
    default: return node("mtext", [`\\${name}`]);
  }
}

function lettered(alphabet, text) {
  const [capital, small, digit] = ALPHABETS[alphabet];
  const moved = (letter) => {
    const code = letter.codePointAt(0);
    const known = ELSEWHERE[alphabet === "mathscr" ? "mathcal" : alphabet]?.[letter];
    if (known) return known;
    if (letter >= "A" && letter <= "Z") return String.fromCodePoint(capital + code - 65);
    if (letter >= "a" && letter <= "z") return String.fromCodePoint(small + code - 97);
    return digit && letter >= "0" && letter <= "9" ? String.fromCodePoint(digit + code - 48) : letter;
  };
  const plain = text.replace(/\\([a-zA-Z]+)\s*/g, (whole, name) => (Object.hasOwn(NAMES, name) ? NAMES[name] : whole));
  return node("mi", [Array.from(plain, moved).join("")], { mathvariant: "normal" });
}

function root(reader, depth) {
  const index = reader.option();
  const under = argument(reader, depth);
  return index ? node("mroot", [under, node("mtext", [index])]) : node("msqrt", [under]);
}

function negated(base) {
  const text = base.children[0];
  return typeof text === "string" ? { ...base, children: [`${text}\u0338`] } : base;
}

/** What stands after \left, \right or \big: a character or a command; a full stop is nothing. */
function fence(reader) {
  reader.skipSpace();
  const token = reader.next();
  if (token === ".") return "";
  const name = token.slice(1);
  return token.startsWith("\\") && Object.hasOwn(FENCES, name) ? FENCES[name] : token.replace(/^\\/, "");
}

function fenced(reader, depth) {
  const open = fence(reader);
  const inside = [];
  for (;;) {
    inside.push(...list(reader, () => false, depth));
    if (reader.ended || reader.token === "\\right" || reader.token === "}" || reader.token === "\\end") break;
    reader.next(); // An & or a new line between fences.
  }
  let close = "";
  if (reader.token === "\\right") { reader.next(); close = fence(reader); }
  const ends = (text) => (text ? [sign(text, { stretchy: "true", fence: "true" })] : []);
  return node("mrow", [...ends(open), ...inside, ...ends(close)]);
}

function environment(reader, depth) {
  const name = reader.raw();
  if (name === "array") reader.raw();
  const rows = [[]];
  for (;;) {
    rows.at(-1).push(node("mtd", list(reader, () => false, depth)));
    const token = reader.next();
    if (token === "\\\\" || token === "\\cr") { reader.option(); rows.push([]); }
    else if (token !== "&") { if (token === "\\end") reader.raw(); break; }
  }
  const empty = rows.length > 1 && rows.at(-1).length === 1 && rows.at(-1)[0].children.length === 0;
  const kept = empty ? rows.slice(0, -1) : rows;
  const kind = /^(?:align|split|eqnarray)/.test(name) ? "aligned" : /cases/.test(name) ? "cases" : "";
  const table = node("mtable", kept.map((cells) => node("mtr", cells)), kind ? { class: kind } : {});
  const [open, close] = AROUND[Object.hasOwn(AROUND, name) ? name : ""] ?? "";
  const ends = (text) => (text?.trim() ? [sign(text, { stretchy: "true", fence: "true" })] : []);
  return row([...ends(open), table, ...ends(close)]);
}
