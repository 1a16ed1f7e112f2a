"""What is told of a run that was asked for some claims only: these, and the figures that decide them.

`meta-icl reproduce PAPER --claims ID` keeps the ids under `claims` of the run's configuration, and under `experiments`
the parts that they need; a run of everything has neither. Parts that another such run has finished are not computed
again (`runs.reuse`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from meta_icl.errors import BadInput
from meta_icl.runs.claims import Claim

if TYPE_CHECKING:
    from meta_icl.runs.run import Run

T = TypeVar("T")
ASKED = ("claims", "experiments")  # the fields of a run's configuration that say what it was asked for


class LeftOut(BadInput):
    """A part that is read was left out, since the claims that the run was asked for do not need it."""


def asked(run: "Run", makers: Mapping[str, Callable[["Run"], Claim | Sequence[Claim]]]) -> list[Claim]:
    """The claims that the functions of their ids make, {"R-2 R-3": function}; only of those with an id asked for."""
    ids = run.config.get("claims")
    made = [make(run) for of, make in makers.items() if ids is None or set(of.split()) & set(ids)]
    return [claim for found in made for claim in ([found] if isinstance(found, Claim) else found)]


def drawn(run: "Run", makers: Mapping[str, Callable[["Run"], T]], decides: Mapping[str, str]) -> dict[str, T]:
    """The figures by name; where claims were asked for, those that decide one of them and need nothing left out."""
    ids = run.config.get("claims")
    if ids is None:
        return {name: make(run) for name, make in makers.items()}
    wanted = {name: make for name, make in makers.items() if set(decides.get(name, "").split()) & set(ids)}
    return those_there(run, wanted)


def those_there(run: "Run", makers: Mapping[str, Callable[["Run"], T]]) -> dict[str, T]:
    """What the functions make of a run, by name, without those that read what was left out."""
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make(run)
        except LeftOut:
            continue
    return made
