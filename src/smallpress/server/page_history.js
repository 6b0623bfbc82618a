// Conversations, kept in this browser only. Each is a tree: an edited question or another answer is a sibling of the first.
//
//   chat     {id, messages, leaf}     leaf: index of the last message that is shown; -1 for an empty chat
//   message  {role, content, parent}  parent: index of the message before it, always smaller; -1 at the beginning

const KEY = "smallpress.chats";
const ROLES = ["user", "assistant"];
const NUMBERS = ["seconds", "thinkingSeconds", "tokens", "thinkingTokens", "total", "cost"];
const TEXTS = ["thinking", "error", "model"];

export function load(storage) {
  try {
    return checked(JSON.parse(storage.getItem(KEY) ?? "[]"));
  } catch {
    return [];
  }
}

/** False where the browser has no room left. */
export function save(storage, chats) {
  try {
    storage.setItem(KEY, JSON.stringify(chats));
    return true;
  } catch {
    return false;
  }
}

/** What an export or the storage holds, in known fields only; throws TypeError where it is something else. */
export function checked(value) {
  if (!Array.isArray(value)) throw new TypeError("no list of chats");
  return value.map((chat) => {
    if (!Array.isArray(chat?.messages)) throw new TypeError("a chat without messages");
    const messages = chat.messages.map(message);
    const leaf = isIndex(chat.leaf, messages.length) ? chat.leaf : messages.length - 1;
    return { id: String(chat.id ?? newId()), messages, leaf };
  });
}

function message(raw, index) {
  if (!ROLES.includes(raw?.role) || typeof raw.content !== "string") throw new TypeError("a message of another kind");
  const parent = raw.parent === -1 || isIndex(raw.parent, index) ? raw.parent : index - 1;
  const kept = { role: raw.role, content: raw.content, parent };
  for (const name of TEXTS) if (typeof raw[name] === "string") kept[name] = raw[name];
  for (const name of NUMBERS) if (Number.isFinite(raw[name])) kept[name] = raw[name];
  if (["stop", "length", "stopped", "failed"].includes(raw.reason)) kept.reason = raw.reason;
  if (/^[A-Z]{3}$/.test(raw.currency)) kept.currency = raw.currency;
  return kept;
}

const isIndex = (value, n) => Number.isInteger(value) && value >= 0 && value < n;

export function newChat() {
  return { id: newId(), messages: [], leaf: -1 };
}

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function title(chat) {
  const first = chat.messages.find(({ role }) => role === "user")?.content.trim().split("\n")[0] ?? "";
  return first.length > 60 ? `${first.slice(0, 59)}…` : first;
}

/** Indices of the messages that are shown, first to last. */
export function shown(chat) {
  const out = [];
  for (let at = chat.leaf; at >= 0; at = chat.messages[at].parent) out.unshift(at);
  return out;
}

/** Indices of a message and of those that stand in its place in other branches. */
export function siblings(chat, index) {
  const { parent } = chat.messages[index];
  return chat.messages.flatMap((other, at) => (other.parent === parent ? [at] : []));
}

/** Adds a message after `parent` and shows the branch that ends with it; its index. */
export function add(chat, message, parent) {
  chat.leaf = chat.messages.push({ ...message, parent }) - 1;
  return chat.leaf;
}

/** Shows the branch with the message `index`, as far as its newest descendant. */
export function choose(chat, index) {
  const under = new Set([index]);
  chat.messages.forEach(({ parent }, at) => { if (under.has(parent)) under.add(at); });
  chat.leaf = Math.max(...under);
}

/** The branch that is shown, as Markdown; thinking is left out. */
export function asMarkdown(chat) {
  const turns = shown(chat).map((at) => chat.messages[at]);
  return turns.map(({ role, content, model }) => `## ${role === "user" ? "Question" : (model ?? "Answer")}\n\n${content}\n`).join("\n");
}
