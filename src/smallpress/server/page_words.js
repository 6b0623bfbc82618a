// The pages' words in their languages.

export const WORDS = {
  en: {
    name: "English", skip: "To the question", newChat: "New chat", export: "Export", import: "Import", theme: "Light or dark",
    menu: "Chats", usage: "Usage and cost", model: "Model", settings: "Settings", system: "System text",
    temperature: "Temperature", topP: "Top-p", topK: "Top-k", minP: "Min-p", seed: "Seed",
    maxTokens: "Longest answer", budget: "Thinking at most", key: "API key", conversation: "Conversation",
    question: "Your question", ask: "Ask something", send: "Send", stop: "Stop", you: "You", copy: "Copy", copied: "Copied",
    edit: "Edit", cancel: "Cancel", again: "Regenerate", remove: "Delete", thinking: "Thinking", thought: "Thought for",
    seconds: "s", tokens: "tokens", left: "left in context", stopped: "stopped", cut: "cut off at the limit",
    empty: "(no answer)", failed: "It failed", lost: "The connection was lost", badFile: "This file holds no chats",
    full: "The browser has no room for more chats; export and delete some", loading: "is loading", answered: "Answered",
    unset: "as recommended", unbounded: "no bound", defaults: "Back to the defaults", markdown: "Save as Markdown",
    earlier: "Earlier version", later: "Later version", version: "Version", of: "of", welcome: "What shall we work out?",
    local: "Runs on this machine. Chats stay in this browser.", chats: "Chats",
    keys: "Enter sends · Shift-Enter new line · Esc stops · Ctrl-K question · Ctrl-Shift-O new chat · ↑ edit",
    chat: "Chat", tokensBy: "Tokens by key and model", since: "Counted since the server started.", keyName: "Key", requests: "Requests",
    hit: "Prompt, cached", miss: "Prompt, computed", completion: "Completion", reasoning: "of it thinking", energy: "kWh", cost: "Cost",
    million: "A million tokens of answers", hour: "This machine costs an hour", pace: "tokens/s", here: "here",
    noUse: "Nothing has been asked yet.", listPrice: "List prices of the services; this machine by its hours at the pace so far.",
    cheaper: "times cheaper than", dearer: "times dearer than", thinkingPaid: "Thinking is paid as output.",
    runs: "Training runs", noRuns: "No run is here yet. One appears when its folder has a run.json.", step: "step",
    running: "running", quiet: "quiet", finished: "finished", started: "started", ago: "ago", remaining: "left", alarms: "Alarms",
    noRun: "Choose a run on the left.", unreadable: "unreadable", waiting: "No step is finished yet.",
  },
  zh: {
    name: "中文", skip: "跳到提问", newChat: "新对话", export: "导出", import: "导入", theme: "浅色或深色",
    menu: "对话列表", usage: "用量与费用", model: "模型", settings: "设置", system: "系统提示",
    temperature: "温度", topP: "Top-p", topK: "Top-k", minP: "Min-p", seed: "随机种子",
    maxTokens: "回答上限", budget: "思考上限", key: "API 密钥", conversation: "对话",
    question: "你的问题", ask: "问点什么", send: "发送", stop: "停止", you: "你", copy: "复制", copied: "已复制",
    edit: "编辑", cancel: "取消", again: "重新生成", remove: "删除", thinking: "思考中", thought: "已思考",
    seconds: "秒", tokens: "词元", left: "上下文剩余", stopped: "已停止", cut: "已达上限",
    empty: "（没有回答）", failed: "出错了", lost: "连接中断", badFile: "这个文件里没有对话",
    full: "浏览器已存满；请导出并删除一些对话", loading: "正在加载", answered: "已回答",
    unset: "按模型推荐", unbounded: "不限", defaults: "恢复默认", markdown: "存为 Markdown",
    earlier: "上一个版本", later: "下一个版本", version: "版本", of: "/", welcome: "一起算点什么？",
    local: "在本机运行。对话只存在这个浏览器里。", chats: "对话",
    keys: "Enter 发送 · Shift-Enter 换行 · Esc 停止 · Ctrl-K 提问 · Ctrl-Shift-O 新对话 · ↑ 编辑",
    chat: "对话", tokensBy: "按密钥和模型统计的词元", since: "自服务器启动以来。", keyName: "密钥", requests: "请求",
    hit: "提示（缓存）", miss: "提示（计算）", completion: "生成", reasoning: "其中思考", energy: "千瓦时", cost: "费用",
    million: "每百万词元的回答", hour: "本机每小时费用", pace: "词元/秒", here: "本机",
    noUse: "还没有请求。", listPrice: "各服务为公开价格；本机按目前速度的机时计算。",
    cheaper: "倍便宜于", dearer: "倍贵于", thinkingPaid: "思考按输出计费。",
    runs: "训练任务", noRuns: "这里还没有训练任务。有 run.json 的文件夹会出现在这里。", step: "步",
    running: "运行中", quiet: "无动静", finished: "已完成", started: "开始于", ago: "前", remaining: "剩余", alarms: "警报",
    noRun: "请在左边选择一个任务。", unreadable: "无法读取", waiting: "还没有完成任何一步。",
  },
};

/** The language to begin with: the one chosen before, else the browser's. */
export function firstLanguage(chosen, browser) {
  if (Object.hasOwn(WORDS, chosen ?? "")) return chosen;
  return browser?.toLowerCase().startsWith("zh") ? "zh" : "en";
}
