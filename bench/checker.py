"""How answers are judged: agreement with math-verify, and what hostile answers do: `python bench/checker.py`.

Agreement: the gold answers of GSM8K and CMATH in many spellings, right ones and wrong ones, read by both. A spelling of
which math-verify accepts not one right answer is outside of it, and is counted apart.
Attack: random and hostile answers, each timed; an audit hook counts programs started, code compiled and files written.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from math_verify import parse, verify

from smallpress.benchmarks.table import open_benchmark
from smallpress.tasks import maths
from smallpress.tasks.chinese import in_digits
from smallpress.tasks.example import Example
from smallpress.tasks.verifier import MathVerify

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Spelling = Callable[[str], str]


def grouped(gold: str) -> str:
    whole, point, rest = gold.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.isdecimal() else gold


def latex_fraction(gold: str) -> str:
    over, _, under = gold.partition("/")
    return gold.replace("%", r"\%") if "%" in gold else rf"\frac{{{over}}}{{{under or 1}}}"


def in_chinese(gold: str) -> str:
    digits, units = "零一二三四五六七八九", ("", "十", "百", "千")
    whole, point, rest = gold.partition(".")
    if len(whole) > 4 or not whole.isdecimal():
        return gold
    said = "".join(digits[int(d)] + (units[len(whole) - 1 - i] if d != "0" else "") for i, d in enumerate(whole))
    said = (said.rstrip("零") or "零").replace("零零", "零")
    return said + ("点" + "".join(digits[int(d)] for d in rest) if point else "")


ENGLISH: dict[str, Spelling] = {
    "1234": lambda g: g,
    "1,234": grouped,
    "1{,}234": lambda g: grouped(g).replace(",", "{,}"),
    "$1234$": lambda g: f"${g}$",
    r"\$1,234": lambda g: rf"\${grouped(g)}",
    "1234.": lambda g: f"{g}.",
    "1234.00": lambda g: f"{g}.00" if g.isdecimal() else g,
    r"\text{1234}": lambda g: rf"\text{{{g}}}",
    r"\frac{1234}{1}": latex_fraction,
    r"1234 \text{ apples}": lambda g: rf"{g} \text{{ apples}}",
    r"1234\,\mathrm{cm}": lambda g: rf"{g}\,\mathrm{{cm}}",
    "1234 dollars": lambda g: f"{g} dollars",
    "x = 1234": lambda g: f"x = {g}",
    r"\ 1234 \;": lambda g: rf"\ {g} \;",
    r"\mathbf{1234}": lambda g: rf"\mathbf{{{g}}}",
    "+1234": lambda g: f"+{g}",
}
CHINESE: dict[str, Spelling] = {
    "1234元": lambda g: f"{g}元",
    "１２３４": lambda g: g.translate({ord("0") + i: chr(ord("０") + i) for i in range(10)}),
    "一千二百三十四": in_chinese,
    "共1234个": lambda g: f"共{g}个",
}


def wrong(gold: str, dice: random.Random) -> str:
    """Another number, written alike."""
    others = [f"1{gold}"] + ([f"{gold}0", str(int(gold) + 1)] if gold.isdecimal() and gold != "0" else [])
    return dice.choice(others)


def theirs(answer: str, gold: str) -> bool:
    return bool(verify(parse(f"${gold}$"), parse(rf"\boxed{{{answer}}}")))


def ours(answer: str, gold: str) -> bool:
    return maths.same(in_digits(answer), gold) is True


def agreement(name: str, golds: list[str], spellings: dict[str, Spelling], dice: random.Random) -> None:
    print(f"\n{name}: {len(golds)} different gold answers\n")
    print("| spelling | right: ours | math-verify | wrong: ours | math-verify | agree |\n|---|---|---|---|---|---|")
    n_all = agree_all = n_read = agree_read = 0
    for spelling, spell in spellings.items():
        pairs = [(gold, spell(gold), spell(wrong(gold, dice))) for gold in golds]
        right = [(ours(a, gold), theirs(a, gold)) for gold, a, _ in pairs]
        off = [(ours(b, gold), theirs(b, gold)) for gold, _, b in pairs]
        same = sum(a == b for a, b in right + off)
        counts = [sum(one[side] for one in part) for part in (right, off) for side in (0, 1)]
        outside = counts[1] == 0
        n_all, agree_all = n_all + 2 * len(pairs), agree_all + same
        if not outside:
            n_read, agree_read = n_read + 2 * len(pairs), agree_read + same
        cells = [f"{count / len(pairs):.2%}" for count in counts] + [f"{same / (2 * len(pairs)):.2%}"]
        print(f"| {spelling}{' (outside)' * outside} | {' | '.join(cells)} |", flush=True)
    print(f"\nagreement {agree_read / n_read:.3%} of {n_read};", end=" ")
    print(f"with the spellings outside {agree_all / n_all:.3%} of {n_all}")


# The attack ----------------------------------------------------------------------------------------------------------

HOSTILE = Path(__file__).with_name("hostile_answers.txt")
LONG = (
    *("9" * 10**6, "{" * 10**5, "(" * 10**5, "-" * 10**5, r"\frac" * 20000, "1," * 50000, "x^" * 50000, " " * 10**6),
    *(r"\boxed{" * 50000, "<answer>" * 50000, r"\boxed{1}" * 20000, "a" * 10**6, "1+" * 50000 + "1", "\n" * 10**6),
    *(
        r"\sqrt{" * 200 + "2" + "}" * 200,
        "((" * 150 + "1" + "))" * 150,
        "1/" * 180 + "1",
        "2^" * 190 + "2",
        "$" * 10**5,
    ),
    *(
        r"\frac{1}{" * 40 + "2" + "}" * 40,
        "0." + "3" * 10**5,
        "1" + "0" * 380,
        "sqrt(" * 70 + "2" + ")" * 70,
        "!" * 300,
    ),
    *(
        "$" * 10**5,
        "!" * 300,
        "%" * 300,
        "7" + "!" * 50,
        r"\cup" * 90,
        "=" * 390,
        r"\pm" * 90,
        "_" * 390,
        "." * 390,
        "7" + "^7" * 150,
    ),
)
SOUP = [
    *"0123456789+-*/^_(){}[]|!%,.=<>xyzie $\\\n",
    *(r"\frac", r"\sqrt", r"\pi", r"\text{", r"\boxed{", r"\pm", r"\cup", r"\sin", "or", "<answer>", "</answer>"),
]
EVENTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "compile")


def hostile(gold: str, other: str) -> list[tuple[str, str, bool]]:
    """(answer, gold, whether it is a hedge, which must not be right)."""
    hedges, _, attacks = HOSTILE.read_text(encoding="utf-8").partition("----\n")
    lines = [(line, True) for line in hedges.splitlines()[1:]] + [(line, False) for line in attacks.splitlines()]
    return [(line.replace("{g}", gold).replace("{h}", other), gold, hedge) for line, hedge in lines]


def random_answers(n: int, golds: list[str], dice: random.Random) -> Iterator[tuple[str, str, bool]]:
    """Signs of mathematics in any order, any characters, and right answers with a few signs put in."""
    spellings = list(ENGLISH.values())
    for i in range(n):
        gold = dice.choice(golds)
        if i % 3 == 0:
            letters = dice.choices(SOUP, k=dice.randrange(40))
        elif i % 3 == 1:
            ranges = ((32, 127), (0x3000, 0x9FFF), (0x20, 0xD7FF))
            letters = [chr(dice.randrange(*dice.choice(ranges))) for _ in range(dice.randrange(30))]
        else:
            letters = list(dice.choice(spellings)(gold))
            for _ in range(dice.randrange(4)):
                letters.insert(dice.randrange(len(letters) + 1), dice.choice(SOUP))
        yield "".join(letters), gold, False


def attack(golds: list[str], n_random: int, dice: random.Random, own_path_only: bool) -> None:
    seen: list[str] = []
    own, full = open_benchmark("jsonl"), open_benchmark("jsonl", MathVerify())
    for bench in (own,) if own_path_only else (own, full):  # starts its process, and imports what it needs
        bench.check(example("1"), r"\boxed{\sin x}")
    watching = True

    def hook(event: str, args: object) -> None:
        if watching and event in EVENTS:
            seen.append(f"{event} {args!r:.200}")

    sys.addaudithook(hook)
    attacks = [one for golds_ in (("42", "43"), ("1/2", "2/3"), ("-7", "8")) for one in hostile(*golds_)]
    attacks += [(text, "42", True) for text in LONG]
    slowest, most_cpu, hedges_right, n_errors, accepted = (0.0, ""), 0.0, [], 0, []
    for i, (text, gold, hedge) in enumerate([*random_answers(n_random, golds, dice), *attacks]):
        asks = not own_path_only and (i >= n_random or i % 500 == 0)
        began, cpu = time.perf_counter(), time.process_time()
        verdict = (full if asks else own).check(example(gold), rf"so \boxed{{{text}}}")
        slowest = max(slowest, (time.perf_counter() - began, text[:60]))
        most_cpu = max(most_cpu, time.process_time() - cpu)
        n_errors += verdict.error
        if verdict.correct:
            hedges_right += [text] if hedge else []
            accepted.append((verdict.answer or "", gold))
    watching = False
    started = [event for event in seen if "verifier_process" not in event]
    odd = sorted({pair for pair in accepted if not theirs(*pair)})
    print(
        f"\n{n_random} random and {len(attacks)} hostile answers; slowest {slowest[0]:.3f} s: {slowest[1]!r};", end=" "
    )
    print(f"at most {most_cpu:.3f} s of processor time here")
    print(f"programs started, code compiled: {len(started)} {started[:3]}; PWNED exists: {Path('PWNED').exists()}")
    print(f"math-verify's process was started anew {len(seen) - len(started)} times; no finding on {n_errors}")
    print(f"hedges scored right: {len(hedges_right)} {hedges_right[:8]}")
    print(f"right: {len(accepted)}, of which math-verify denies {len(odd)} different ones: {odd[:12]}")


def example(gold: str) -> Example:
    return Example("q", gold, "jsonl", 1, "k", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--random", type=int, default=100_000)
    parser.add_argument("--part", choices=("attack", "agreement", "both"), default="both")
    parser.add_argument("--own", action="store_true", help="attack our own path only, without math-verify's process")
    parser.add_argument("--golds", type=int, default=10_000, help="different gold answers of each set, at most")
    asked = parser.parse_args()
    dice = random.Random(0)
    gsm8k = open_benchmark("gsm8k").read(asked.data / "gsm8k" / "test.jsonl")
    cmath = open_benchmark("cmath").read(asked.data / "cmath" / "cmath_dev.jsonl")
    golds = [sorted({example.reference.replace(",", "") for example in part}) for part in (gsm8k, cmath)]
    golds = [dice.sample(part, min(asked.golds, len(part))) for part in golds]
    if asked.part != "agreement":
        attack(golds[0] + golds[1], asked.random, dice, asked.own)
    if asked.part != "attack":
        agreement("GSM8K", golds[0], ENGLISH, dice)
        agreement("CMATH", golds[1], ENGLISH | CHINESE, dice)


if __name__ == "__main__":
    main()
