"""Claims as the content of `claims.json`, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from meta_icl.errors import BadInput, require
from meta_icl.runs.claims import Check, Claim, Converged, Rule
from meta_icl.runs.files import FORMAT


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
        "converged": _guard_to_json(claim.converged),
        "revised": claim.revised,
        "checks": [
            {
                "quantity": check.quantity,
                "expected": check.expected,
                "rule": _rule_to_json(check.rule),
                "share": check.share,
                "measured": list(check.measured),
                "converged": _guard_to_json(check.converged),
                "median": check.median,
                "spread": list(check.spread),
                "holds": check.holds,
                "verdict": check.verdict,
            }
            for check in claim.checks
        ],
    }


def _rule_to_json(rule: Rule) -> dict[str, Any]:
    return {"kind": rule.kind, "a": rule.a, "b": rule.b}


def _guard_to_json(guard: Converged | None) -> dict[str, Any] | None:
    if guard is None:
        return None
    told = {"quantity": guard.quantity, "rule": _rule_to_json(guard.rule), "measured": list(guard.measured)}
    return told | {"share": guard.share, "seeds": list(guard.seeds), "text": guard.text}


# Claims written before there were guards and revisions have neither key.


def _claim_from_json(value: Mapping[str, Any]) -> Claim:
    checks = [
        Check(
            check["quantity"],
            Rule(**check["rule"]),
            tuple(check["measured"]),
            check["share"],
            _guard_from_json(check.get("converged")),
        )
        for check in value["checks"]
    ]
    return Claim(
        value["id"],
        value["statement"],
        value["source"],
        checks,
        value["undecided"],
        value["note"],
        _guard_from_json(value.get("converged")),
        value.get("revised"),
    )


def _guard_from_json(value: Mapping[str, Any] | None) -> Converged | None:
    if value is None:
        return None
    return Converged(value["quantity"], Rule(**value["rule"]), tuple(value["measured"]), value["share"])
