"""Closed forms, compared exactly: quotients of polynomials in letters, pi, e, i and square roots.

A polynomial maps a monomial to its rational coefficient. A monomial is a square-free number under the root and the
letters with their powers; sqrt(a) sqrt(b) = sqrt(ab) and i^2 = -1 are applied, so two polynomials are equal exactly
where their coefficients are. What cannot be multiplied out (a sine, a cube root, 2^x) is a letter named by its text:
two forms that differ in such letters may yet be equal, and the comparison says None.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd

Monomial = tuple[int, tuple[tuple[str, int], ...]]
Polynomial = dict[Monomial, Fraction]

MAX_TERMS = 200
MAX_BITS = 2048
MAX_POWER = 32
MAX_RADICAND = 10**10
ONE: Monomial = (1, ())


class UnreadableError(ValueError):
    """The text is no closed form; the message says why."""


class NoValueError(UnreadableError):
    """It has none that a reference could have: a division by zero, or a number too large to write."""


@dataclass(frozen=True, slots=True)
class Form:
    """over / under. `under` is not zero."""

    over: Polynomial
    under: Polynomial

    def __add__(self, other: Form) -> Form:
        if self.under == other.under:
            return Form(_sum(self.over, other.over), self.under)
        over = _sum(_product(self.over, other.under), _product(other.over, self.under))
        return Form(over, _product(self.under, other.under))

    def __neg__(self) -> Form:
        return Form({monomial: -factor for monomial, factor in self.over.items()}, self.under)

    def __sub__(self, other: Form) -> Form:
        return self + -other

    def __mul__(self, other: Form) -> Form:
        return Form(_product(self.over, other.over), _product(self.under, other.under))

    def __truediv__(self, other: Form) -> Form:
        if not other.over:
            raise NoValueError("divides by zero")
        return Form(_product(self.over, other.under), _product(self.under, other.over))

    @property
    def value(self) -> Fraction | None:
        """The number it is, None where it is none."""
        if self.over.keys() <= {ONE} and self.under.keys() == {ONE}:
            return self.over.get(ONE, Fraction(0)) / self.under[ONE]
        return None

    @property
    def opaque(self) -> bool:
        """Whether it holds something that was not multiplied out."""
        return any(name[0] == "\\" for part in (self.over, self.under) for _, letters in part for name, _ in letters)

    def same(self, other: Form) -> bool | None:
        """Whether both are equal for all values of their letters; None where that stays open.

        >>> (number(1) / root(number(3))).same(root(number(3)) / number(3))
        True
        """
        difference = _sum(_product(self.over, other.under), _product((-other).over, self.under))
        if not difference:
            return True
        return None if self.opaque or other.opaque else False

    def __str__(self) -> str:
        value = self.value
        if value is not None:
            return str(value)
        parts = [
            sorted((monomial, str(factor)) for monomial, factor in part.items()) for part in (self.over, self.under)
        ]
        return repr(parts)


def number(value: int | Fraction) -> Form:
    if max(Fraction(value).numerator.bit_length(), Fraction(value).denominator.bit_length()) > MAX_BITS:
        raise NoValueError("too large a number")
    return Form({ONE: Fraction(value)} if value else {}, {ONE: Fraction(1)})


def letter(name: str) -> Form:
    return Form({(1, ((name, 1),)): Fraction(1)}, {ONE: Fraction(1)})


def function(name: str, *arguments: Form) -> Form:
    """Something that is not multiplied out, named by what it is of."""
    return letter("\\" + name + "(" + ";".join(map(str, arguments)) + ")")


def root(form: Form, degree: int = 2) -> Form:
    """A square root taken apart; a root of a higher degree where it comes out even."""
    value = form.value
    if value is None or degree < 1 or (degree != 2 and value < 0):
        return function("root", number(degree), form)
    if degree == 2:
        whole, radicand = _square_free(abs(value.numerator) * value.denominator)
        real = Form({(radicand, ()): Fraction(whole, value.denominator)} if value else {}, {ONE: Fraction(1)})
        return real * letter("i") if value < 0 else real
    over, under = (_whole_root(part, degree) for part in (value.numerator, value.denominator))
    return function("root", number(degree), form) if over is None or under is None else number(Fraction(over, under))


def power(base: Form, exponent: Form) -> Form:
    """A whole power multiplied out, a half one as a root."""
    by = exponent.value
    if by is None or by.denominator > MAX_POWER:
        return function("power", base, exponent)
    if abs(by.numerator) > MAX_POWER and base.value not in (0, 1, -1):
        # A number may still be raised as far as it has room.
        value = base.value
        bits = 0 if value is None else max(value.numerator.bit_length(), value.denominator.bit_length())
        if value is None or bits * abs(by.numerator) > MAX_BITS:
            raise NoValueError("too large a power")
        raised = number(value ** abs(by.numerator))
    else:
        raised = number(1)
        for _ in range(min(abs(by.numerator), MAX_POWER + by.numerator % 2)):
            raised = raised * base
    if by < 0:
        raised = number(1) / raised
    return raised if by.denominator == 1 else root(raised, by.denominator)


# Polynomials ---------------------------------------------------------------------------------------------------------


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    total = dict(a)
    for monomial, factor in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + factor
    return _bounded(total)


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    if len(a) * len(b) > MAX_TERMS * 4:
        raise NoValueError("too many terms")
    total: Polynomial = {}
    for one, one_factor in a.items():
        for other, other_factor in b.items():
            monomial, factor = _times(one, other)
            total[monomial] = total.get(monomial, Fraction(0)) + one_factor * other_factor * factor
    return _bounded(total)


def _bounded(polynomial: Polynomial) -> Polynomial:
    kept = {monomial: factor for monomial, factor in polynomial.items() if factor}
    if len(kept) > MAX_TERMS:
        raise NoValueError("too many terms")
    for factor in kept.values():
        if factor.numerator.bit_length() > MAX_BITS or factor.denominator.bit_length() > MAX_BITS:
            raise NoValueError("too large a number")
    return kept


def _times(a: Monomial, b: Monomial) -> tuple[Monomial, int]:
    """The product and the factor that comes out of it."""
    factor = gcd(a[0], b[0])  # both are square-free
    radicand = a[0] * b[0] // factor**2
    powers = dict(a[1])
    for name, exponent in b[1]:
        powers[name] = powers.get(name, 0) + exponent
        if powers[name] > 2 * MAX_POWER:
            raise NoValueError("too large a power")
    if "i" in powers:
        factor *= -1 if powers["i"] % 4 > 1 else 1
        powers["i"] %= 2
    return (radicand, tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))), factor


def _square_free(n: int) -> tuple[int, int]:
    """(a, b) with n = a^2 b and b square-free."""
    if n > MAX_RADICAND:
        raise NoValueError("too large a number under a root")
    whole, free, divisor = 1, 1, 2
    while divisor * divisor <= n:
        exponent = 0
        while n % divisor == 0:
            n //= divisor
            exponent += 1
        whole *= divisor ** (exponent // 2)
        free *= divisor ** (exponent % 2)
        divisor += 1 if divisor == 2 else 2
    return whole, free * n


def _whole_root(n: int, degree: int) -> int | None:
    """The whole number whose power `degree` is n >= 0."""
    low, high = 0, 1 << (n.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < n:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == n else None
