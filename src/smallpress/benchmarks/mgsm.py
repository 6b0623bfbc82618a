"""MGSM: 250 problems of GSM8K in eleven languages (Shi et al. 2022, arXiv 2210.03057)."""

from pathlib import Path

from smallpress.benchmarks.benchmark import MathsBenchmark
from smallpress.tasks.chinese import in_digits
from smallpress.tasks.example import Example
from smallpress.tasks.records import Record, string, text_or_number

ASKED = {
    "bn": "ধাপে ধাপে চিন্তা করুন এবং চূড়ান্ত উত্তরটি \\boxed{} এর মধ্যে লিখুন।",
    "de": "Denke Schritt für Schritt und schreibe die endgültige Antwort in \\boxed{}.",
    "en": "Please reason step by step, and put your final answer within \\boxed{}.",
    "es": "Razona paso a paso y escribe la respuesta final dentro de \\boxed{}.",
    "fr": "Raisonne étape par étape et écris la réponse finale dans \\boxed{}.",
    "ja": "順を追って考え、最終的な答えを \\boxed{} の中に書いてください。",
    "ru": "Рассуждай шаг за шагом и запиши окончательный ответ внутри \\boxed{}.",
    "sw": "Fikiri hatua kwa hatua, kisha andika jibu la mwisho ndani ya \\boxed{}.",
    "te": "దశలవారీగా ఆలోచించి, తుది సమాధానాన్ని \\boxed{} లో రాయండి.",
    "th": "โปรดคิดทีละขั้นตอน และเขียนคำตอบสุดท้ายไว้ใน \\boxed{}",
    "zh": "请逐步推理，并将最终答案写在 \\boxed{} 中。",
}


class MGSM(MathsBenchmark):
    name = "mgsm"
    file = "mgsm_<language>.tsv, question and number a line, or a folder of them"
    prompt = "{question}"  # with the line of its language below it

    def problem(self, record: Record, where: str) -> Example:
        file = Path(where.rpartition(", ")[0]).stem.partition(".")[0]
        language = file.rpartition("_")[2]
        asked = ASKED.get(language, ASKED["en"])
        question = string(record, "0" if "0" in record else "question", where)
        reference = text_or_number(record, "1" if "1" in record else "answer", where)
        return self.ask(f"{question}\n\n{asked}", reference, part=language if language in ASKED else "")

    def plain(self, text: str) -> str:
        return in_digits(text)
