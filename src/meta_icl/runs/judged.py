"""`claims.json`: the claims of a run, bound to the configuration and the results on which they were judged."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_icl.errors import BadInput
from meta_icl.runs.claims import Claim
from meta_icl.runs.claims_json import claims_from_json, claims_to_json
from meta_icl.runs.config import CONFIG, stated_config
from meta_icl.runs.files import digest, read_versioned, sealed, unsealed, write_json
from meta_icl.runs.manifest import Manifest

CLAIMS = "claims.json"
OLDER = {"format", "claims"}  # what a file held before claims were bound to anything


def write_claims(folder: Path, claims: Sequence[Claim], config: Mapping[str, Any], results: str | None) -> None:
    """Write the claims of a configuration; `results` is the digest of a finished run (`Manifest.results`)."""
    bound = {**claims_to_json(claims), "config": digest(dict(config)), "results": results}
    write_json(folder / CLAIMS, sealed(bound))


def read_claims(folder: Path, manifest: Manifest | None = None) -> list[Claim]:
    """The claims in a run folder or in a folder of kept results; none if none were written.

    Raises `BadInput` if they were changed, belong to another configuration or (with the `manifest` of a finished run)
    to other results, or if a verdict is not the one that its checks give.
    """
    path = folder / CLAIMS
    if not os.path.lexists(path):
        if manifest is not None and manifest.claims:
            raise BadInput(f"{path} is missing: the run was judged")
        return []
    value = read_versioned(path)
    if set(value) != OLDER:
        value = unsealed(value, path)
        if os.path.lexists(folder / CONFIG) and value.get("config") != digest(stated_config(folder)):
            raise BadInput(f"{path} holds the claims of another configuration than {folder / CONFIG}")
        if manifest is not None and value.get("results") != manifest.results:
            raise BadInput(f"{path} was judged on other results than those in {folder}; the same command judges again")
    elif manifest is not None:
        raise BadInput(f"{path} does not say on which results it was judged; the same command judges again")
    return checked_claims(value, path)


def checked_claims(value: Mapping[str, Any], path: Path) -> list[Claim]:
    """The claims in the content of a `claims.json`, whose verdicts must be those of their checks."""
    try:
        claims = claims_from_json(value, str(path))
        stated = [claim["verdict"] for claim in value["claims"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} does not hold claims as meta_icl writes them ({error})") from None
    for claim, verdict in zip(claims, stated, strict=True):
        if claim.verdict != verdict:
            raise BadInput(f"{path} says {verdict!r} of claim {claim.id}, but its checks say {claim.verdict!r}")
    return claims
