"""The plots of two, three and four steps (see `plots`)."""

from __future__ import annotations

from smallpress.tasks.dice import Dice
from smallpress.tasks.plots import Numbers, Plot


def _small(dice: Dice, n: int) -> Numbers:
    return tuple(dice.between(2, 9) for _ in range(n))


def _gain_and_loss(dice: Dice) -> Numbers:
    first, gain = dice.between(2, 15), dice.between(2, 9)
    return first, gain, dice.between(2, first + gain - 1)


def _change(dice: Dice) -> Numbers:
    n, price = dice.between(2, 6), dice.between(2, 8)
    return n, price, dice.between(n * price + 1, n * price + 20)


def _bags_less(dice: Dice) -> Numbers:
    n, each = dice.between(2, 6), dice.between(3, 9)
    return n, each, dice.between(2, n * each - 1)


def _join_and_share(dice: Dice) -> Numbers:
    friends, each = dice.between(2, 6), dice.between(2, 9)
    first = dice.between(2, friends * each - 2)
    return first, friends * each - first, friends


def _use_and_share(dice: Dice) -> Numbers:
    friends, each, used = dice.between(2, 6), dice.between(2, 9), dice.between(2, 9)
    return friends * each + used, used, friends


TWO_STEPS = (
    Plot(
        "gain-loss",
        _gain_and_loss,
        lambda n: [(n[0], "+", n[1]), (n[0] + n[1], "-", n[2])],
        (
            "{A} has {0} {things}. {He} buys {1} more and gives {2} to {B}. How many {things} does {A} have now?",
            "{A} had {0} {things}, found {1} more, then lost {2}. How many {things} are left?",
            "A bus has {0} people. {1} get on and {2} get off. How many people are on the bus now?",
        ),
    ),
    Plot(
        "more-together",
        lambda dice: _small(dice, 2),
        lambda n: [(n[0], "+", n[1]), (n[0], "+", n[0] + n[1])],
        (
            "{A} has {0} {things}. {B} has {1} more than {A}. How many {things} do they have together?",
            "{A} read {0} pages today and {1} more than that yesterday. How many pages is that in all?",
        ),
    ),
    Plot(
        "times-together",
        lambda dice: (dice.between(2, 9), dice.between(2, 5)),
        lambda n: [(n[0], "*", n[1]), (n[0], "+", n[0] * n[1])],
        ("{A} has {0} {things}. {B} has {1} times as many. How many {things} do they have together?",),
    ),
    Plot(
        "change",
        _change,
        lambda n: [(n[0], "*", n[1]), (n[2], "-", n[0] * n[1])],
        (
            "{A} buys {0} pens at {1} dollars each and pays with {2} dollars. How many dollars does {he} get back?",
            "{A} has {2} dollars and buys {0} tickets for {1} dollars each. How many dollars are left?",
        ),
    ),
    Plot(
        "bags-less",
        _bags_less,
        lambda n: [(n[0], "*", n[1]), (n[0] * n[1], "-", n[2])],
        (
            "{A} has {0} bags of {1} {things} and gives away {2} {things}. How many {things} are left?",
            "There are {0} rows of {1} chairs. {2} chairs are taken. How many chairs are free?",
        ),
    ),
    Plot(
        "bags-more",
        lambda dice: _small(dice, 3),
        lambda n: [(n[0], "*", n[1]), (n[0] * n[1], "+", n[2])],
        (
            "{A} has {0} boxes of {1} {things} and {2} more {things}. How many {things} does {he} have?",
            "{A} ran {1} miles a day for {0} days, then {2} miles on Sunday. How many miles did {he} run?",
        ),
    ),
    Plot(
        "join-share",
        _join_and_share,
        lambda n: [(n[0], "+", n[1]), (n[0] + n[1], "/", n[2])],
        (
            "{A} has {0} red and {1} blue {things}. {He} shares them equally among {2} friends. "
            "How many does each friend get?",
        ),
    ),
    Plot(
        "use-share",
        _use_and_share,
        lambda n: [(n[0], "-", n[1]), (n[0] - n[1], "/", n[2])],
        ("{A} has {0} {things}, keeps {1} and puts the rest equally into {2} bags. How many are in each bag?",),
    ),
)


def _two_losses(dice: Dice) -> Numbers:
    first, gain, loss = dice.between(8, 20), dice.between(2, 9), dice.between(2, 6)
    return first, loss, gain, dice.between(2, first - loss + gain - 1)


def _pay(dice: Dice) -> Numbers:
    wage, hours, days = dice.between(2, 9), dice.between(2, 5), dice.between(2, 5)
    return wage, hours, days, dice.between(2, wage * hours * days - 1)


def _bags_share(dice: Dice) -> Numbers:
    while True:
        bags, each, friends = dice.between(2, 6), dice.between(3, 9), dice.between(2, 6)
        eaten = bags * each - friends * dice.between(2, 9)
        if eaten >= 2:
            return bags, each, eaten, friends


def _rest_of_book(dice: Dice) -> Numbers:
    days, pages, later, more = dice.between(2, 5), dice.between(3, 9), dice.between(2, 9), dice.between(2, 8)
    return days * pages + later * more, pages, days, later


THREE_STEPS = (
    Plot(
        "loss-gain-loss",
        _two_losses,
        lambda n: [(n[0], "-", n[1]), (n[0] - n[1], "+", n[2]), (n[0] - n[1] + n[2], "-", n[3])],
        (
            "{A} has {0} {things}. {He} gives {1} to {B}, buys {2} more and loses {3}. How many {things} are left?",
            "A bus has {0} people. {1} get off, {2} get on, then {3} get off. How many people are on the bus?",
        ),
    ),
    Plot(
        "two-kinds",
        lambda dice: _small(dice, 4),
        lambda n: [(n[0], "*", n[1]), (n[2], "*", n[3]), (n[0] * n[1], "+", n[2] * n[3])],
        (
            "{A} has {0} bags of {1} {things} and {2} boxes of {3} {things}. How many {things} does {he} have?",
            "{A} buys {0} pens at {1} dollars each and {2} books at {3} dollars each. How many dollars does {he} pay?",
        ),
    ),
    Plot(
        "wages",
        _pay,
        lambda n: [(n[0], "*", n[1]), (n[0] * n[1], "*", n[2]), (n[0] * n[1] * n[2], "-", n[3])],
        (
            "{A} earns {0} dollars an hour and works {1} hours a day for {2} days. {He} spends {3} dollars. "
            "How many dollars are left?",
        ),
    ),
    Plot(
        "bags-share",
        _bags_share,
        lambda n: [(n[0], "*", n[1]), (n[0] * n[1], "-", n[2]), (n[0] * n[1] - n[2], "/", n[3])],
        (
            "{A} has {0} bags of {1} {things}. {He} keeps {2} and shares the rest equally among {3} friends. "
            "How many does each friend get?",
        ),
    ),
    Plot(
        "rest-of-book",
        _rest_of_book,
        lambda n: [(n[1], "*", n[2]), (n[0], "-", n[1] * n[2]), (n[0] - n[1] * n[2], "/", n[3])],
        (
            "A book has {0} pages. {A} reads {1} pages a day for {2} days, then {3} pages a day. "
            "How many more days does {he} need?",
        ),
    ),
    Plot(
        "more-times",
        lambda dice: (dice.between(2, 9), dice.between(2, 9), dice.between(2, 4)),
        lambda n: [(n[0], "+", n[1]), (n[0] + n[1], "*", n[2]), (n[0], "+", (n[0] + n[1]) * n[2])],
        (
            "{A} has {0} {things}. {B} has {1} more than {A}. {C} has {2} times as many as {B}. "
            "How many {things} do {A} and {C} have together?",
        ),
    ),
)


def _shop(dice: Dice) -> Numbers:
    pens, price, books, cost = dice.between(2, 5), dice.between(2, 5), dice.between(2, 5), dice.between(2, 9)
    spent = pens * price + books * cost
    return pens, price, books, cost, dice.between(spent + 1, spent + 20)


def _four_events(dice: Dice) -> Numbers:
    first, loss, gain, bags, each = (
        dice.between(8, 20), dice.between(2, 6), dice.between(2, 9), dice.between(2, 5), dice.between(2, 6)
    )  # fmt: skip
    return first, loss, gain, bags, each


def _two_kinds_shared(dice: Dice) -> Numbers:
    while True:
        bags, each, boxes, inside, friends = (*_small(dice, 4), dice.between(2, 6))
        total = bags * each + boxes * inside
        if total % friends == 0:
            return bags, each, boxes, inside, friends


FOUR_STEPS = (
    Plot(
        "shop",
        _shop,
        lambda n: [
            (n[0], "*", n[1]),
            (n[2], "*", n[3]),
            (n[0] * n[1], "+", n[2] * n[3]),
            (n[4], "-", n[0] * n[1] + n[2] * n[3]),
        ],
        (
            "{A} buys {0} pens at {1} dollars each and {2} books at {3} dollars each. {He} pays with {4} dollars. "
            "How many dollars does {he} get back?",
        ),
    ),
    Plot(
        "three-people",
        lambda dice: (dice.between(2, 9), dice.between(2, 9), dice.between(2, 4)),
        lambda n: [
            (n[0], "+", n[1]),
            (n[0] + n[1], "*", n[2]),
            (n[0], "+", n[0] + n[1]),
            (2 * n[0] + n[1], "+", (n[0] + n[1]) * n[2]),
        ],
        (
            "{A} has {0} {things}. {B} has {1} more than {A}. {C} has {2} times as many as {B}. "
            "How many {things} do all three have?",
        ),
    ),
    Plot(
        "events",
        _four_events,
        lambda n: [
            (n[0], "-", n[1]),
            (n[0] - n[1], "+", n[2]),
            (n[3], "*", n[4]),
            (n[0] - n[1] + n[2], "+", n[3] * n[4]),
        ],
        (
            "{A} has {0} {things}. {He} loses {1}, finds {2} and buys {3} bags of {4}. "
            "How many {things} does {he} have now?",
        ),
    ),
    Plot(
        "two-kinds-shared",
        _two_kinds_shared,
        lambda n: [
            (n[0], "*", n[1]),
            (n[2], "*", n[3]),
            (n[0] * n[1], "+", n[2] * n[3]),
            (n[0] * n[1] + n[2] * n[3], "/", n[4]),
        ],
        (
            "{A} has {0} bags of {1} {things} and {2} boxes of {3} {things}. {He} shares them all equally among "
            "{4} friends. How many does each friend get?",
        ),
    ),
)

MANY_STEPS: dict[int, tuple[Plot, ...]] = {2: TWO_STEPS, 3: THREE_STEPS, 4: FOUR_STEPS}
