"""Claims: statements of a publication with what was expected, what was measured, and the verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat

from meta_icl.errors import BadInput, choose, require
from meta_icl.runs.files import FORMAT

Verdict = Literal["holds", "fails", "not decided"]
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
class Check:
    """One quantity of a claim, measured once per seed (or once), against a rule.

    It holds when the median over seeds satisfies the rule or, if `share` is given, when at least that share of the
    seeds does. A seed that measured NaN makes the median NaN, and NaN satisfies no rule.
    """

    quantity: str
    rule: Rule
    measured: Any  # one number, or one per seed (tuple, list, array); kept as a tuple of floats
    share: float | int | None = None

    def __post_init__(self):
        measured = self.measured
        values = tuple(measured) if hasattr(measured, "__iter__") else (measured,)
        object.__setattr__(self, "measured", tuple(float(value) for value in values))
        require(len(self.measured) > 0, f"measured of {self.quantity!r}", self.measured, "at least one number")
        require(self.share is None or 0 < self.share <= 1, "share", self.share, "more than 0 and at most 1, or nothing")

    @property
    def median(self) -> float:
        """The median over seeds; NaN if any is NaN."""
        if any(math.isnan(value) for value in self.measured):
            return math.nan
        values, n = sorted(self.measured), len(self.measured)
        low, high = values[(n - 1) // 2], values[n // 2]
        return low if low == high else 0.5 * low + 0.5 * high

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value over seeds (of those that are numbers)."""
        numbers = [value for value in self.measured if not math.isnan(value)]
        return (min(numbers), max(numbers)) if numbers else (math.nan, math.nan)

    @property
    def holds(self) -> bool:
        """Whether the check is satisfied."""
        if self.share is None:
            return self.rule.accepts(self.median)
        accepted = sum(self.rule.accepts(value) for value in self.measured)
        return accepted >= self.share * len(self.measured) - 1e-9  # 0.7 * 10 is a little more than 7

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return self.rule.text if self.share is None else f"{self.rule.text} in {number(100 * self.share)} % of seeds"

    @property
    def measured_text(self) -> str:
        """The median and, over several seeds, the spread."""
        if self.rule.kind == "is_true" and len(set(self.measured)) == 1:
            return "true" if self.measured[0] == 1 else "false"
        if len(self.measured) == 1:
            return number(self.median)
        low, high = self.spread
        return f"{number(self.median)} [{number(low)}, {number(high)}]"


@dataclass(frozen=True)
class Claim:
    """A statement of a publication; `undecided` says why a run cannot decide it, if so."""

    id: str
    statement: str
    source: str
    checks: Sequence[Check] = ()  # kept as a tuple
    undecided: str | None = None
    note: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "checks", tuple(self.checks))
        require(bool(self.id), "id of a claim", self.id, "some text, such as 'rossi2024/R-5'")
        if not self.checks and not self.undecided:
            raise BadInput(f"claim {self.id} has neither checks nor a reason why it is undecided")

    @property
    def verdict(self) -> Verdict:
        """ "holds" if all checks do, "fails" if one does not, "not decided" if the run cannot say."""
        if self.undecided is not None:
            return "not decided"
        return "holds" if all(check.holds for check in self.checks) else "fails"


def number(value: float) -> str:
    """A number with four significant digits, as short as it can be."""
    if math.isnan(value):
        return "NaN"
    text = f"{value:.4g}"
    return text.replace("inf", "∞")


def claims_to_json(claims: Sequence[Claim]) -> dict[str, Any]:
    """The content of `claims.json`: all that `claims_from_json` needs, and what follows from it for other readers."""
    ids = [claim.id for claim in claims]
    for id in ids:
        require(ids.count(id) == 1, "id of a claim", id, "given once")
    return {"format": FORMAT, "claims": [_claim_to_json(claim) for claim in claims]}


def claims_from_json(value: Mapping[str, Any], where: str) -> list[Claim]:
    """The claims in the content of a `claims.json`; `where` names the file in errors."""
    try:
        return [_claim_from_json(claim) for claim in value["claims"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{where} does not hold claims as meta_icl writes them ({error!r})") from None


def _claim_to_json(claim: Claim) -> dict[str, Any]:
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "verdict": claim.verdict,
        "undecided": claim.undecided,
        "note": claim.note,
        "checks": [
            {
                "quantity": check.quantity,
                "expected": check.expected,
                "rule": {"kind": check.rule.kind, "a": check.rule.a, "b": check.rule.b},
                "share": check.share,
                "measured": list(check.measured),
                "median": check.median,
                "spread": list(check.spread),
                "holds": check.holds,
            }
            for check in claim.checks
        ],
    }


def _claim_from_json(value: Mapping[str, Any]) -> Claim:
    checks = tuple(
        Check(check["quantity"], Rule(**check["rule"]), tuple(check["measured"]), check["share"])
        for check in value["checks"]
    )
    return Claim(value["id"], value["statement"], value["source"], checks, value["undecided"], value["note"])
