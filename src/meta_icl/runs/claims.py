"""Claims: statements of a publication with what was expected, what was measured, and the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, SupportsFloat

from meta_icl.errors import BadInput, choose, require

Verdict = Literal["holds", "fails", "not decided", "not converged"]
VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "not decided", "not converged")
KINDS = ("within", "relative", "absolute", "at_most", "at_least", "is_true")


@dataclass(frozen=True)
class Rule:
    """What a measured number must satisfy; made by the constructors below, never tuned to the result."""

    kind: str
    a: float  # low, expected or limit
    b: float = 0.0  # high, share or tolerance

    def __post_init__(self):
        choose("rule", self.kind, KINDS)
        require(not math.isnan(self.a) and not math.isnan(self.b), "rule", (self.a, self.b), "free of NaN")
        if self.kind == "within":
            require(self.a <= self.b, "within", (self.a, self.b), "low, then high")
        if self.kind in ("relative", "absolute"):
            require(self.b >= 0, "tolerance", self.b, "zero or more")

    @property
    def interval(self) -> tuple[float, float]:
        """The lowest and the highest number that satisfy the rule, both included."""
        a, b = self.a, self.b
        match self.kind:
            case "within":
                return a, b
            case "relative":
                return a - b * abs(a), a + b * abs(a)
            case "absolute":
                return a - b, a + b
            case "at_most":
                return -math.inf, a
            case "at_least":
                return a, math.inf
            case _:
                return 1.0, 1.0

    def accepts(self, value: float) -> bool:
        """Whether a number satisfies the rule; NaN never does."""
        low, high = self.interval
        return low <= value <= high

    @property
    def text(self) -> str:
        """The rule in words."""
        a, b = number(self.a), number(self.b)
        match self.kind:
            case "within":
                return f"{a} to {b}"
            case "relative":
                return f"{a} ± {number(100 * self.b)} %"
            case "absolute":
                return f"{a} ± {b}"
            case "at_most":
                return f"at most {a}"
            case "at_least":
                return f"at least {a}"
            case _:
                return "true"


def within(low: SupportsFloat, high: SupportsFloat) -> Rule:
    """Between `low` and `high`."""
    return Rule("within", float(low), float(high))


def relative(expected: SupportsFloat, share: SupportsFloat) -> Rule:
    """Off from `expected` by at most this share of it."""
    return Rule("relative", float(expected), float(share))


def absolute(expected: SupportsFloat, tolerance: SupportsFloat) -> Rule:
    """Off from `expected` by at most `tolerance`."""
    return Rule("absolute", float(expected), float(tolerance))


def at_most(limit: SupportsFloat) -> Rule:
    """No more than `limit`."""
    return Rule("at_most", float(limit))


def at_least(limit: SupportsFloat) -> Rule:
    """No less than `limit`."""
    return Rule("at_least", float(limit))


def is_true() -> Rule:
    """A statement about shape or order, measured as 1 (true) or 0."""
    return Rule("is_true", 1.0)


@dataclass(frozen=True)
class Converged:
    """The guard of a claim: which seeds reached what their training aims at, such as loss / Bayes of at most 1.01.

    It is stated before the run and never looks at the quantity that is judged. Seeds whose number does not satisfy the
    rule are recorded, not judged; when fewer than `share` of all seeds (at least half) satisfy it, nothing is judged.
    """

    quantity: str
    rule: Rule
    measured: Any  # one number per seed
    share: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "measured", _numbers(self.quantity, self.measured))
        require(0.5 <= self.share <= 1, f"share of {self.quantity!r}", self.share, "from 0.5 to 1")

    @property
    def seeds(self) -> tuple[bool, ...]:
        """For every seed whether it converged; one that measured NaN did not."""
        return tuple(self.rule.accepts(value) for value in self.measured)

    @property
    def holds(self) -> bool:
        """Whether enough seeds converged."""
        return _enough(self.seeds, self.share)

    @property
    def text(self) -> str:
        """How many seeds converged, by which rule."""
        least = "" if self.share == 0.5 else f" in {number(100 * self.share)} % of seeds"
        return f"{sum(self.seeds)} of {len(self.seeds)} seeds converged ({self.quantity} {self.rule.text}{least})"


@dataclass(frozen=True)
class Check:
    """One quantity of a claim, measured once per seed (or once), against a rule.

    It holds when the median over seeds satisfies the rule or, if `share` is given, when at least that share of the
    seeds does. A seed that measured NaN makes the median NaN, and NaN satisfies no rule. With a guard, `converged`,
    the seeds that did not converge do not count, and without enough others the check neither holds nor fails.
    """

    quantity: str
    rule: Rule
    measured: Any  # one number, or one per seed (tuple, list, array); kept as a tuple of floats
    share: float | int | None = None
    converged: Converged | None = None

    def __post_init__(self):
        object.__setattr__(self, "measured", _numbers(self.quantity, self.measured))
        require(self.share is None or 0 < self.share <= 1, "share", self.share, "more than 0 and at most 1, or nothing")
        if self.converged is not None:
            seeds, allowed = len(self.converged.measured), f"{len(self.measured)}, as measured of {self.quantity!r}"
            require(seeds == len(self.measured), f"number of seeds of {self.converged.quantity!r}", seeds, allowed)

    @property
    def judged(self) -> tuple[float, ...]:
        """What counts: all seeds or, with a guard that enough of them pass, those that converged."""
        if self.converged is None or not self.converged.holds:
            return self.measured
        return tuple(value for value, good in zip(self.measured, self.converged.seeds, strict=True) if good)

    @property
    def median(self) -> float:
        """The median over the seeds that count; NaN if any is NaN."""
        if any(math.isnan(value) for value in self.judged):
            return math.nan
        values, n = sorted(self.judged), len(self.judged)
        low, high = values[(n - 1) // 2], values[n // 2]
        return low if low == high else 0.5 * low + 0.5 * high

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value over the seeds that count (of those that are numbers)."""
        numbers = [value for value in self.judged if not math.isnan(value)]
        return (min(numbers), max(numbers)) if numbers else (math.nan, math.nan)

    @property
    def verdict(self) -> Verdict:
        """ "not converged" if too few seeds did, else "holds" or "fails"."""
        if self.converged is not None and not self.converged.holds:
            return "not converged"
        if self.share is None:
            return "holds" if self.rule.accepts(self.median) else "fails"
        return "holds" if _enough([self.rule.accepts(value) for value in self.judged], self.share) else "fails"

    @property
    def holds(self) -> bool:
        """Whether the check is satisfied."""
        return self.verdict == "holds"

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return self.rule.text if self.share is None else f"{self.rule.text} in {number(100 * self.share)} % of seeds"

    @property
    def measured_text(self) -> str:
        """The median and, over several seeds, the spread; how many seeds count where not all do."""
        of = f" ({len(self.judged)} of {len(self.measured)} seeds)" if len(self.judged) < len(self.measured) else ""
        if self.rule.kind == "is_true" and len(set(self.judged)) == 1:
            return ("true" if self.judged[0] == 1 else "false") + of
        if len(self.judged) == 1:
            return number(self.median) + of
        low, high = self.spread
        return f"{number(self.median)} [{number(low)}, {number(high)}]{of}"


@dataclass(frozen=True)
class Claim:
    """A statement of a publication; `undecided` says why a run cannot decide it, if so.

    `converged` guards the claim: too few converged seeds, and it is "not converged"; it becomes the guard of every
    check that has one number per seed and none of its own. `revised` says why the expectation is not the first one,
    with the source.
    """

    id: str
    statement: str
    source: str
    checks: Sequence[Check] = ()  # kept as a tuple
    undecided: str | None = None
    note: str | None = None
    converged: Converged | None = None
    revised: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "checks", tuple(_guarded(check, self.converged) for check in self.checks))
        require(bool(self.id), "id of a claim", self.id, "some text, such as 'rossi2024/R-5'")
        if not self.checks and not self.undecided:
            raise BadInput(f"claim {self.id} has neither checks nor a reason why it is undecided")

    @property
    def guards(self) -> tuple[Converged, ...]:
        """The guards of the claim and of its checks, each once."""
        found = (self.converged, *(check.converged for check in self.checks))
        return tuple(dict.fromkeys(guard for guard in found if guard is not None))

    @property
    def verdict(self) -> Verdict:
        """ "not decided" if the run cannot say, "not converged" if too few seeds are trained, else by the checks.

        Of several checks one that fails decides, then one whose seeds did not converge.
        """
        if self.undecided is not None:
            return "not decided"
        if self.converged is not None and not self.converged.holds:
            return "not converged"
        found = {check.verdict for check in self.checks}
        return next(verdict for verdict in ("fails", "not converged", "holds") if verdict in found)

    @property
    def remarks(self) -> dict[str, str]:
        """What is to be said beside statement and numbers: {heading: text}."""
        guards = "; ".join(guard.text for guard in self.guards)
        told = {"Not decided": self.undecided, "Converged": guards, "Revised": self.revised, "Note": self.note}
        return {heading: text for heading, text in told.items() if text}


def _numbers(quantity: str, measured: Any) -> tuple[float, ...]:
    values = tuple(measured) if hasattr(measured, "__iter__") else (measured,)
    require(len(values) > 0, f"measured of {quantity!r}", values, "at least one number")
    return tuple(float(value) for value in values)


def _enough(passed: Sequence[bool], share: float) -> bool:
    return sum(passed) >= share * len(passed) - 1e-9  # 0.7 * 10 is a little more than 7


def _guarded(check: Check, guard: Converged | None) -> Check:
    fits = guard is not None and check.converged is None and len(check.measured) == len(guard.measured)
    return replace(check, converged=guard) if fits else check


def number(value: float) -> str:
    """A number with four significant digits, as short as it can be."""
    if math.isnan(value):
        return "NaN"
    text = f"{value:.4g}"
    return text.replace("inf", "∞")
