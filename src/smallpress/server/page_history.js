// Conversations, kept in this browser only.

const KEY = "smallpress.chats";
const ROLES = ["user", "assistant"];

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
    return { id: String(chat.id ?? newId()), messages: chat.messages.map(message) };
  });
}

function message(raw) {
  if (!ROLES.includes(raw?.role) || typeof raw.content !== "string") throw new TypeError("a message of another kind");
  const kept = { role: raw.role, content: raw.content };
  if (typeof raw.thinking === "string") kept.thinking = raw.thinking;
  for (const name of ["seconds", "thinkingSeconds", "tokens", "thinkingTokens", "total"]) {
    if (Number.isFinite(raw[name])) kept[name] = raw[name];
  }
  if (["stop", "length", "stopped", "failed"].includes(raw.reason)) kept.reason = raw.reason;
  if (typeof raw.error === "string") kept.error = raw.error;
  return kept;
}

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function title(chat) {
  const first = chat.messages.find(({ role }) => role === "user")?.content.trim().split("\n")[0] ?? "";
  return first.length > 60 ? `${first.slice(0, 59)}…` : first;
}

/** The chat up to a message of the user, which is to be asked again with `content`: what followed it goes. */
export function asked(chat, index, content) {
  return { ...chat, messages: [...chat.messages.slice(0, index), { role: "user", content }] };
}
