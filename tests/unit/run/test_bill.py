import pytest

from smallpress.run.bill import Bill, EndpointSettings
from smallpress.run.endpoint import Reply
from smallpress.run.errors import UserError


class Client:
    """Answers each question with 10 tokens for 5 of its own, when it is asked."""

    def replies(self, bodies):
        for place, _ in enumerate(bodies):
            yield place, Reply("a", None, True, 5, 10, 0)


def test_every_answer_is_charged():
    bill = Bill(EndpointSettings(price_in=2.0, price_out=4.0))
    assert len(list(bill.paid_for(Client(), [{}] * 7))) == 7
    assert bill.completion_tokens == 70 and bill.cost == pytest.approx(7 * (5 * 2 + 10 * 4) / 1e6)


def test_the_money_ends_the_asking():
    bill, got = Bill(EndpointSettings(price_out=5e5, max_cost=12.0)), []  # each answer costs 5
    with pytest.raises(UserError, match=r"15 is spent, and endpoint\.max_cost is 12"):
        for place, _ in bill.paid_for(Client(), [{}] * 7):
            got.append(place)
    assert got == [0, 1, 2]
