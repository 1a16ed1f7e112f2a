"""The claims of Goldwaser et al. (2025), judged from a finished run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.runs import Run, asked
from meta_icl.runs.claims import Check, Claim, Converged, at_least, at_most, within

from .experiments import ANY_WEIGHTS, FLOOR, PRECISIONS, STACKS


def claims(run: Run) -> list[Claim]:
    """G1 .. G7; all but G6 concern random, untrained blocks."""
    return asked(
        run,
        {
            "G1 G2 G3 G4 G5": lambda run: identity_claims(exact(run)),
            "G6": lambda run: claim_g6(run.part_arrays("language")),
            "G7": lambda run: claim_g7(exact(run)),
        },
    )


def exact(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Errors of random blocks by precision and name."""
    return {name: run.part_arrays(f"identities-{name}") for name in PRECISIONS}


def identity_claims(exact: Mapping[str, Any]) -> list[Claim]:
    """What concerns random blocks."""
    return [
        identity(
            "G1",
            "A Llama block: patches of the gate, up and down matrices replace the context",
            "thm, gated blocks",
            ("Llama",),
            exact,
        ),
        identity(
            "G2",
            "The same through the scale of the norm before the MLP",
            "input-controllable",
            ("Llama, norm scale",),
            exact,
        ),
        identity(
            "G3",
            "A Gemma block: gate and up matrices, and the scale of the last norm; parallel blocks and experts likewise",
            "Gemma blocks",
            ("Gemma", "parallel", "experts"),
            exact,
            note_on_scales(exact),
            SCALES,
        ),
        claim_g4(exact),
        claim_g5(exact),
    ]


def note_on_scales(exact: Mapping[str, Any]) -> str:
    """What the change of the last norm's scale does to the precision of Gemma blocks, and what lifting changes."""
    errors, lifted, changes, small = (
        np.concatenate([exact["float32"][f"Gemma/{name.format(part)}"] for part in ("all", "half")])
        for name in ("{}", "{}, lifted", "scale change, {}", "scale change, {}, lifted")
    )
    return (
        f"Gemma in float32: largest error {errors.max():.1e}, where the scale changes by "
        f"{changes[errors.argmax()]:.1e} (G4). A form of our own, in which a change of the last matrix first lifts "
        f"entries of the normalised answer to {FLOOR}: largest error {lifted.max():.1e}, largest change "
        f"{small.max():.2g}. "
    )


SCALES = (
    "in float32 the error of a Gemma block is bounded in proportion to the change of its last norm's scale, 1e-5 times "
    "it where it exceeds 1: what is added to a scale of order one is rounded to the precision of the sum, so its error "
    "grows with it; at first the bound was 1e-5 whatever the change"
)


def identity(
    id: str,
    statement: str,
    source: str,
    blocks: tuple[str, ...],
    exact: Mapping[str, Any],
    note: str = "",
    revised: str | None = None,
) -> Claim:
    """Every random block within 1e-12 in float64 and 1e-5 in float32, all or half of the context removed.

    In float32 the limit is multiplied by the change of the last norm's scale, where there is one and it exceeds 1.
    """
    checks = []
    for block in blocks:
        for part in ("all", "half"):
            for name, limit in (("float64", 1e-12), ("float32", 1e-5)):
                quantity, error = f"{block}, {part} of the context: relative error", exact[name][f"{block}/{part}"]
                change = exact[name].get(f"{block}/scale change, {part}")
                if name == "float32" and change is not None:
                    quantity, error = f"{quantity} / change of the scale, at least 1", error / np.maximum(change, 1)
                checks.append(Check(f"{quantity}, {name}", at_most(limit), error, share=1.0))
    id = f"goldwaser2025/{id}"
    return Claim(id, statement, source, tuple(checks), note=note + ANY_WEIGHTS, revised=revised)


def claim_g4(exact: Mapping[str, Any]) -> Claim:
    values = exact["float64"]["Gemma/scale change, all"]
    check = Check(
        "largest change of the last norm's scale over all random blocks", at_least(100), (float(values.max()),)
    )
    note = (
        f"median over blocks {np.median(values):.3g}; entries of the normalised answer near zero make the patch "
        "ill-conditioned: not for bfloat16"
    )
    undecided = None if values.size >= 20 else f"{values.size} blocks are too few for a worst case"
    statement = "The change of the scale can be a hundred times the scale"
    return Claim("goldwaser2025/G4", statement, "limits", (check,), undecided, note)


def claim_g5(exact: Mapping[str, Any]) -> Claim:
    checks = [
        Check(
            f"{kind}: relative error of the stack, {name}",
            at_most(limit),
            tuple(exact[name][f"{kind} stack/all"]),
            share=1.0,
        )
        for kind in STACKS
        for name, limit in (("float64", 1e-10), ("float32", 1e-4))
    ]
    gemma = {key: exact["float32"][f"Gemma stack/{key}"] for key in ("all", "all, lifted", "scale change, all")}
    note = (
        "in float32 every Gemma block multiplies a difference of rounding by the change of its last norm's scale, up "
        f"to {gemma['scale change, all'].max():.2g}, and {np.median(gemma['all']):.1g} of the answer is missed at the "
        f"median; where small entries are lifted first (a form of our own) {np.median(gemma['all, lifted']):.1g}. "
    )
    statement = "A stack is replaced exactly by a patch in every block"
    return Claim("goldwaser2025/G5", statement, "stacks", tuple(checks), note=note + ANY_WEIGHTS)


def claim_g6(language: Mapping[str, np.ndarray]) -> Claim:
    n_new = int(language["trained/every step"].max())
    # What is left to learn is the copy alone: guessing among 16 tokens has log 16 = 2.77 nats, a perfect copy none.
    copies = Converged("training loss, nats", at_most(0.1 * np.log(16)), language["loss"][-1])
    checks = []
    for name, guard in (("trained", copies), ("untrained", None)):
        same, apart = (language[f"{name}/every step"] == n_new).mean(1), language[f"{name}/logits"].max(1)
        checks += [
            Check(f"{name} model: share of prompts with identical tokens", within(1, 1), same, converged=guard),
            Check(
                f"{name} model: largest difference of logits, in their standard deviations",
                at_most(1e-3),
                apart,
                converged=guard,
            ),
        ]
    means = {patch: np.mean(language[f"trained/{patch}"]) for patch in ("first step", "none")}
    note = (
        f"of {n_new} tokens of the trained model (final loss {np.median(language['loss'][-1]):.2f} nats) the patch of "
        f"the first step, kept, gets {means['first step']:.1f} right on average before the first error, no patch "
        f"{means['none']:.1f}; "
        "Gemma 3 1B itself is not run here"
    )
    return Claim(
        "goldwaser2025/G6",
        "With a patch for every token, generation without the prompt gives the same tokens",
        "experiments",
        tuple(checks),
        note=note,
    )


def claim_g7(exact: Mapping[str, Any]) -> Claim:
    checks = []
    for block in ("Llama", "Gemma"):
        for what in ("no residual patch", "before the norm"):
            checks.append(
                Check(f"{block}, {what}: relative error", at_least(0.1), tuple(exact["float64"][f"{block}/{what}"]))
            )
    return Claim(
        "goldwaser2025/G7",
        "Without the residual part, or before the norm, the patch fails",
        "controls",
        tuple(checks),
        note="Random, untrained blocks: limits of the identity, which say nothing of learning.",
    )
