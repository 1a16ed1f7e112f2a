"""The claims of von Oswald et al. (2022), judged from a finished run; tolerances were fixed before any run.

The guards were stated after an early run, before the one that `results/` keeps.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from meta_icl.runs import Run, asked, read_json
from meta_icl.runs.claims import Check, Claim, Converged, at_least, at_most, is_true, relative, within

from .measures import AFTER, DEEP_SCALES, INPUT_SCALES, OTHER_SCALES, REPLACED, STUCK, TARGET_SCALES, reads
from .training import HALF_RANGE, D, N

PUBLISHED = read_json(Path(__file__).with_name("published.json"))
ZERO_LOSS = 0.5 * D * HALF_RANGE**2 / 3


def claims(run: Run) -> list[Claim]:
    """VO-1 .. VO-24; tolerances were fixed before any run."""
    found = asked(
        run,
        {
            "VO-1 VO-2 VO-24": lambda run: claims_constructions(run.load_arrays("constructions")),
            "VO-3 VO-4 VO-5 VO-6 VO-7": lambda run: claims_single(run.load_arrays("single")),
            "VO-8": claim_sizes,
            "VO-9 VO-10 VO-11 VO-12": lambda run: claims_shifted(run.load_arrays("single")),
            "VO-13 VO-14 VO-15 VO-16": lambda run: claims_deep(run.load_arrays("deep")),
            "VO-17 VO-18": lambda run: claims_rollouts(run.load_arrays("rollouts"), trained(run.load_arrays("single"))),
            "VO-19": lambda run: claim_softmax(run, run.load_arrays("single")),
            "VO-20": claim_sine,
            "VO-21 VO-22 VO-23": claims_separate,
        },
    )
    return sorted(found, key=lambda one: int(one.id.rsplit("-", 1)[1]))


def claim(
    number: int,
    statement: str,
    source: str,
    *checks: Check,
    note: str | None = None,
    converged: Converged | None = None,
    revised: str | None = None,
) -> Claim:
    id = f"vonoswald2022/VO-{number}"
    return Claim(id, statement, source, checks, note=note, converged=converged, revised=revised)


def trained(single: dict[str, np.ndarray]) -> Converged:
    """The guard of what is said about the trained layer other than its loss: that loss, as VO-4 bounds it."""
    return Converged("trained / GD loss", at_most(1.01), single["trained"] / single["gd"])


def claims_constructions(errors: dict[str, np.ndarray]) -> list[Claim]:
    gd = [Check(f"largest error, K = {k}", at_most(1e-5), (e,)) for k, e in enumerate(errors["gd"], 1)]
    plus = [Check(f"largest error, K = {k}", at_most(1e-5), (e,)) for k, e in enumerate(errors["gd_plus_plus"], 1)]
    copy = Check("largest error against one gradient step", at_most(1e-4), (float(errors["copy"]),))
    return [
        claim(1, "Linear attention can implement K steps of gradient descent, from any W0", "Proposition 1", *gd),
        claim(2, "Linear attention can implement GD++", "GD++ equation", *plus),
        claim(24, "A copy layer and a gradient layer do one step on separate tokens", "Proposition 3", copy),
    ]


def claims_single(single: dict[str, np.ndarray]) -> list[Claim]:
    gd, guard = float(single["gd"][0]), trained(single)
    ratio = tuple(single["trained"] / gd)
    corner = -float(single["rate"]) / N
    off = np.maximum(single["weights/off_read"], single["weights/off_write"])
    return [
        claim(
            3, "The best rate is 6.06 (0.606 per example) and gives a loss of 0.206", "Fig. 2, notebook",
            Check("rate / N, line search", relative(0.606, 0.03), (float(single["searched"]) / N,)),
            Check("loss of one gradient step", relative(0.206, 0.03), (gd,)),
        ),
        claim(
            4, "A trained layer has the loss of one gradient step", "Fig. 2 left",
            Check("trained / GD loss, same prompts", within(0.995, 1.01), ratio),
        ),
        claim(
            5, "The trained layer is aligned with the gradient step", "Fig. 2",
            Check("cosine of sensitivities", at_least(0.998), tuple(single["alignment/cosine"])),
            Check("model difference", at_most(0.12), tuple(single["alignment/model_difference"])),
            Check("prediction difference", at_most(0.03), tuple(single["alignment/prediction_difference"])),
            converged=guard,
        ),
        claim(
            6, "The trained weights are those of the construction", "weight heat maps",
            Check("entry that writes the target", relative(corner, 0.03), tuple(single["weights/corner"])),
            Check("largest other deviation", at_most(0.08), tuple(off)),
            converged=guard,
        ),
        claim(
            7, "The mean of trained and constructed weights does the same", "Fig. 2",
            Check("interpolated / GD loss", at_most(1.01), tuple(single["interpolated"] / gd)),
            converged=guard,
        ),
    ]  # fmt: skip


def claim_sizes(run: Run) -> Claim:
    sizes = run.load_arrays("sizes")
    expected = dict(zip(PUBLISHED["sizes"]["n"], PUBLISHED["sizes"]["loss"], strict=True))
    checks = []
    for i, d in enumerate(sizes["sizes"].tolist()):
        rule = relative(expected[d], 0.05)
        guard = Converged(f"least / most read direction of the inputs, N = d = {d}", at_least(STUCK), reads(run, d))
        checks.append(Check(f"GD, N = d = {d}", rule, (sizes["gd"][i],)))
        checks.append(Check(f"trained, N = d = {d}", rule, sizes["trained"][i], converged=guard))
        checks.append(Check(f"interpolated, N = d = {d}", rule, sizes["interpolated"][i], converged=guard))
    return claim(8, "Trained, interpolated and gradient step agree for every N = d", "Fig. 2 centre-right", *checks)


def claims_shifted(single: dict[str, np.ndarray]) -> list[Claim]:
    def rows(name: str, scales: tuple[float, ...]) -> dict[float, tuple[float, np.ndarray]]:
        pairs = zip(single[f"{name}/gd"], single[f"{name}/trained"], strict=True)
        return dict(zip(scales, ((float(gd), trained) for gd, trained in pairs), strict=True))

    def guard(changed: bool) -> Converged | None:  # on prompts like those of training it would be what is judged
        return trained(single) if changed else None

    inputs, targets = rows("inputs", INPUT_SCALES), rows("targets", TARGET_SCALES)
    laws, replaced = rows("laws", OTHER_SCALES), rows("replaced", REPLACED)
    absolute_inputs = dict(zip(PUBLISHED["scaled_inputs"]["scale"], PUBLISHED["scaled_inputs"]["loss"], strict=True))
    replaced_losses = PUBLISHED["replaced_labels"]["loss"]
    vo9 = [
        Check(f"trained / GD, inputs times {a}", within(0.97, 1.03), t / gd, converged=guard(a != 1))
        for a, (gd, t) in inputs.items()
    ]
    vo9 += [Check(f"GD, inputs times {a}", relative(e, 0.03), (inputs[a][0],)) for a, e in absolute_inputs.items()]
    vo10 = []
    for scale, (gd, layers) in targets.items():
        expected = scale**2 * 0.206
        vo10.append(Check(f"GD, w times {scale:g}", relative(expected, 0.03), (gd,)))
        label = f"trained, w times {scale:g}"
        vo10.append(Check(label, relative(expected, 0.03), layers, converged=guard(scale != 1)))
    vo11 = [
        Check(f"trained / GD, scale {a:g}", within(0.85, 1.15), t / gd, converged=guard(True))
        for a, (gd, t) in laws.items()
    ]
    vo12 = []
    for (k, (gd, layers)), expected in zip(replaced.items(), replaced_losses, strict=True):
        vo12.append(Check(f"GD, {k:g} replaced labels", relative(expected, 0.05), (gd,)))
        label = f"trained, {k:g} replaced labels"
        vo12.append(Check(label, relative(expected, 0.05), layers, converged=guard(k > 0)))
    return [
        claim(9, "Trained layer and gradient step agree for scaled inputs", "Fig. 2 right", *vo9),
        claim(10, "Both scale exactly with the task", "appendix", *vo10),
        claim(11, "Both agree for other laws of the inputs", "appendix", *vo11),
        claim(12, "Both degrade alike when labels are replaced by noise", "appendix", *vo12),
    ]


def claims_deep(deep: dict[str, np.ndarray]) -> list[Claim]:
    gd2, plus2, two = float(deep["K2/gd"][0]), float(deep["K2/plus"][0]), deep["K2/trained"]
    at = {scale: i for i, scale in enumerate(DEEP_SCALES)}
    shape = []
    # Bounded as in VO-13 and VO-15.
    guards = {
        "K2": Converged("two layers: trained / GD++ loss", at_most(1.06), two / plus2),
        "K5": Converged("five layers: trained loss", at_most(0.075), deep["K5/trained"]),
    }
    for name, label in (("K2", "two layers"), ("K5", "five layers")):
        guard = guards[name]
        ratio = deep[f"{name}/shift_ratio"]
        shape += [
            Check(
                f"{label}: trained / GD++, inputs times {scale:g}, five sets",
                within(0.75, 1.25),
                ratio[at[scale]],
                converged=guard if scale != 1 else None,  # on the training law it would be what is judged
            )
            for scale in (0.5, 0.8, 1.0, 1.2)
        ]
        with np.errstate(divide="ignore"):  # GD++ overflows far outside the training law
            further = np.abs(np.log(ratio[at[2.0]])) > np.abs(np.log(ratio[at[1.2]]))
        shape.append(Check(f"{label}: further apart at 2 than at 1.2", is_true(), further.astype(float), None, guard))
    middle = deep["K2/interpolated"] / deep["K2/trained"]
    shape.append(Check("two layers: interpolated / trained loss", at_most(1.25), middle, None, guards["K2"]))
    return [
        claim(
            13, "Two looped layers beat two gradient steps and reach GD++", "Fig. 3",
            Check("two gradient steps, twenty sets", relative(0.157, 0.03), tuple(deep["K2/gd_sets"])),
            Check("GD++, twenty sets", relative(0.1105, 0.03), tuple(deep["K2/plus_sets"])),
            Check("trained / GD++", at_most(1.06), tuple(two / plus2)),
            Check("trained below GD", at_most(gd2), tuple(two)),
        ),
        claim(
            14, "Two looped layers are closer to GD++ than to gradient descent", "Fig. 3",
            Check("cosine to GD++ less cosine to GD", at_least(0.0), deep["K2/cosine_plus"] - deep["K2/cosine_gd"]),
            Check("cosine to GD++", at_least(0.99), tuple(deep["K2/cosine_plus"])),
            converged=guards["K2"],
        ),
        claim(
            15, "Five layers beat five gradient steps and come near GD++", "Fig. 3",
            Check("five gradient steps, twenty sets", relative(0.109, 0.03), tuple(deep["K5/gd_sets"])),
            Check("GD++, twenty sets", relative(0.0521, 0.03), tuple(deep["K5/plus_sets"])),
            Check("trained", at_most(0.075), tuple(deep["K5/trained"])),
        ),
        claim(
            16, "Deep models follow GD++ near the training law and leave it far outside", "Fig. 3, appendix", *shape,
            revised="interpolated weights are judged for the two looped layers only, since the released notebook "
            "interpolates no others; at first five separate layers were judged too",
        ),
    ]  # fmt: skip


def claims_rollouts(rollouts: dict[str, np.ndarray], guard: Converged) -> list[Claim]:
    at = {float(d): i for i, d in enumerate(rollouts["dampening"])}
    checks = []
    for loop, expected, found in zip(AFTER, PUBLISHED["rolled_out"]["loss"], rollouts["gd_sets"], strict=True):
        share = 0.10 if loop == 50 else 0.05
        checks.append(Check(f"GD after {loop} loops, twenty sets", relative(expected, share), tuple(found)))
        ratio = tuple(rollouts["ratio"][:, loop - 1])
        label, further = f"trained / GD after {loop} loops, five sets", guard if loop > 1 else None
        checks.append(Check(label, within(1 - share, 1 + share), ratio, converged=further))
    stable = [
        d for d in at if np.isfinite(rollouts["gd"][at[d], -1]) and rollouts["gd"][at[d], -1] < rollouts["gd"][at[d], 9]
    ]
    threshold = Check("largest stable dampening of gradient descent", within(0.70, 0.80), (max(stable, default=0.0),))
    return [
        claim(17, "The trained layer can be rolled out like gradient descent", "appendix", *checks),
        claim(18, "Roll-outs of gradient descent diverge beyond a dampening of about 0.75", "appendix", threshold),
    ]


def claim_softmax(run: Run, single: dict[str, np.ndarray]) -> Claim:
    gd = float(single["gd"][0])
    one, two = run.part_arrays("softmax-1"), run.part_arrays("softmax-2")
    read = np.diagonal(two["qk"][:, 0], axis1=-2, axis2=-1)[..., :-1].mean(-1)  # seeds heads
    write = two["ov"][:, 0, :, -1, -1]
    opposite = (np.sign(read).prod(1) < 0) & (np.sign(write).prod(1) < 0)
    effective = np.einsum("sh,shij->sij", write, two["qk"][:, 0])[:, :-1, :-1]
    diagonal = np.square(np.diagonal(effective, axis1=-2, axis2=-1)).sum(-1) / np.square(effective).sum((-2, -1))
    guard = Converged("two heads: loss / GD", at_most(1.1), two["eval"][-1] / gd)
    begun = Converged("one head: loss / that of the zero predictor", at_most(0.9), one["eval"][-1] / ZERO_LOSS)
    return claim(
        19, "One softmax head is worse than gradient descent, two do as well", "appendix",
        Check("one head: loss / GD", at_least(1.1), tuple(one["eval"][-1] / gd), converged=begun),
        Check("two heads: loss / GD", at_most(1.1), tuple(two["eval"][-1] / gd)),
        Check("two heads of opposite sign", is_true(), opposite.astype(float), converged=guard),
        Check("heads together: share of the diagonal", at_least(0.9), diagonal, converged=guard),
    )  # fmt: skip


def claim_sine(run: Run) -> Claim:
    transformer, gd = run.part_arrays("sine-transformer")["eval"][-1], run.part_arrays("sine-gd")["eval"][-1]
    return claim(
        20, "MLP and linear attention do a gradient step on deep features", "Fig. 4",
        Check("transformer / MLP with gradient step", within(0.8, 1.2), tuple(transformer / np.median(gd))),
        Check("transformer: loss", at_most(0.01), tuple(transformer)),
        Check("MLP with gradient step: loss", at_most(0.01), tuple(gd)),
        note="a trained layer may read and write every channel, the fixed step the last one only, which learns more "
        "slowly: after 6,000 steps of 128 prompts at 2e-3 the ratio was 0.65",
    )  # fmt: skip


def claims_separate(run: Run) -> list[Claim]:
    soft, linear = run.part_arrays("separate-softmax"), run.part_arrays("separate-linear")
    final, steps = soft["eval"][-1], soft["step"]
    # The drop is that from the plateau of the zero predictor; the start lies above it, by the drawn weights' own error.
    dropped = first_crossing(steps, -soft["eval"], -0.5 * (ZERO_LOSS + final))
    copied = first_crossing(steps, soft["copying/next"], 0.5 * soft["copying/next"][-1])
    ratio = soft["copying/next"][-1] / soft["copying/other_without_next"][-1]
    slower = np.median(linear["eval"][-1]) / np.median(final)
    # On the plateau the model has not begun to learn; then this training is too short to decide anything.
    reason = None
    if np.median(final) > 0.9 * ZERO_LOSS:
        reason = (
            f"after {steps[-1]} steps the softmax model is still on the plateau of the zero predictor "
            f"({np.median(final):.3f}; linear first layer: {np.median(linear['eval'][-1]):.3f}); the published batches "
            "of 2,048 and 10,000 steps need the `paper` preset"
        )
    copying_first = (
        Check("steps by which copying is half-way before the loss is", at_least(0.0), dropped - copied),
        Check("final sensitivity, next / other tokens", at_least(5.0), ratio),
    )
    told = [
        claim(
            21, "On separate tokens two layers copy, then do one gradient step, not two", "Fig. 5",
            Check("final loss", relative(0.206, 0.05), final),
            note="copying still sharpens when this training ends",
        ),
        claim(
            22, "The first layer learns to copy the next token before the loss falls", "Fig. 5", *copying_first,
            converged=Converged("final loss / loss of the zero predictor", at_most(0.9), final / ZERO_LOSS),
        ),
        claim(
            23, "A linear first layer fails to copy, or is far slower", "notebook remark",
            Check("final loss, linear / softmax first layer", at_least(1.2), (float(slower),)),
        ),
    ]  # fmt: skip
    return [replace(one, undecided=reason) for one in told]


def first_crossing(steps: np.ndarray, values: np.ndarray, level: np.ndarray) -> np.ndarray:
    """For every column of "records seeds" the step that first reaches its level, interpolated between records."""
    found = []
    for column, goal in zip(values.T, level, strict=True):
        after = max(int((column >= goal).argmax()), 1)
        found.append(np.interp(goal, column[after - 1 : after + 1], steps[after - 1 : after + 1]))
    return np.array(found)
