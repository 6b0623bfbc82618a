// The page's words in its languages.

export const WORDS = {
  en: {
    name: "English", skip: "To the question", newChat: "New chat", export: "Export", import: "Import", theme: "Light / dark",
    model: "Model", settings: "Settings", system: "System text", temperature: "Temperature", topP: "Top-p",
    maxTokens: "Longest answer (tokens)", budget: "Thinking at most (tokens)", key: "API key", conversation: "Conversation",
    question: "Your question", send: "Send", stop: "Stop", you: "You", copy: "Copy", edit: "Edit", again: "Regenerate",
    remove: "Delete", thinking: "Thinking", thought: "Thought for", seconds: "s", tokens: "tokens", left: "left in context",
    stopped: "stopped", cut: "cut off at the limit", empty: "(no answer)", failed: "It failed", badFile: "This file holds no chats",
  },
  zh: {
    name: "中文", skip: "跳到提问", newChat: "新对话", export: "导出", import: "导入", theme: "浅色 / 深色",
    model: "模型", settings: "设置", system: "系统提示", temperature: "温度", topP: "Top-p",
    maxTokens: "回答上限（词元）", budget: "思考上限（词元）", key: "API 密钥", conversation: "对话",
    question: "你的问题", send: "发送", stop: "停止", you: "你", copy: "复制", edit: "编辑", again: "重新生成",
    remove: "删除", thinking: "思考中", thought: "已思考", seconds: "秒", tokens: "词元", left: "上下文剩余",
    stopped: "已停止", cut: "已达上限", empty: "（没有回答）", failed: "出错了", badFile: "这个文件里没有对话",
  },
};

/** The language to begin with: the one chosen before, else the browser's. */
export function firstLanguage(chosen, browser) {
  if (WORDS[chosen]) return chosen;
  return browser?.toLowerCase().startsWith("zh") ? "zh" : "en";
}
