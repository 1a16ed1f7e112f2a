"""The claims of Goldwaser et al. (2025), judged from a finished run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.runs import Run
from meta_icl.runs.claims import Check, Claim, at_least, at_most, within

from .experiments import ANY_WEIGHTS, FLOOR, PRECISIONS, STACKS


def claims(run: Run) -> list[Claim]:
    """G1 .. G7; all but G6 concern random, untrained blocks."""
    exact = {name: run.part_arrays(f"identities-{name}") for name in PRECISIONS}
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
        ),
        claim_g4(exact),
        claim_g5(exact),
        claim_g6(run.part_arrays("language")),
        claim_g7(exact),
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


def identity(
    id: str, statement: str, source: str, blocks: tuple[str, ...], exact: Mapping[str, Any], note: str = ""
) -> Claim:
    """Every random block within 1e-12 in float64 and 1e-5 in float32, all or half of the context removed."""
    checks = [
        Check(
            f"{block}, {part} of the context: relative error, {name}",
            at_most(limit),
            tuple(exact[name][f"{block}/{part}"]),
            share=1.0,
        )
        for block in blocks
        for part in ("all", "half")
        for name, limit in (("float64", 1e-12), ("float32", 1e-5))
    ]
    return Claim(f"goldwaser2025/{id}", statement, source, tuple(checks), note=note + ANY_WEIGHTS)


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
    return Claim(
        "goldwaser2025/G5",
        "A stack is replaced exactly by a patch in every block",
        "stacks",
        tuple(checks),
        note=ANY_WEIGHTS,
    )


def claim_g6(language: Mapping[str, np.ndarray]) -> Claim:
    n_new = int(language["trained/every step"].max())
    checks = []
    for name in ("trained", "untrained"):
        same = (language[f"{name}/every step"] == n_new).mean(1)
        checks.append(Check(f"{name} model: share of prompts with identical tokens", within(1, 1), tuple(same)))
        checks.append(
            Check(
                f"{name} model: largest difference of logits, in their standard deviations",
                at_most(1e-3),
                tuple(language[f"{name}/logits"].max(1)),
            )
        )
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
