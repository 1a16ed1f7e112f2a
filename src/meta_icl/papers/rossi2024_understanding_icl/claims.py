"""The claims of Rossi et al. (2024), judged from a finished run."""

from itertools import pairwise

import numpy as np

from meta_icl.runs import Run, asked
from meta_icl.runs.claims import Check, Claim, Converged, absolute, at_least, at_most, is_true, relative, within

from .experiments import FEW, closed_form_loss, contexts_of, lstms_of, published, stacks_of

FORWARD_LOSS = 1.12  # where the post's training of LSTMs that read forwards ends, of any depth: 1.11 to 1.13


def claims(run: Run) -> list[Claim]:
    """R-1 .. R-12; tolerances are those set for the reproduction, the paper's docstring says what was settled later."""
    layers = {c: run.part_arrays(f"layer-D5-C{c}") for c in contexts_of(run)}

    def of_layer(n_context: int) -> Converged:
        return trained(run.part_arrays(f"layer-D10-C{n_context}"))

    return asked(
        run,
        {
            "R-1": lambda run: claim_best_rate(run.load_arrays("best_rate")),
            "R-2": lambda run: claim_losses(layers),
            "R-3": lambda run: claim_speed(layers),
            "R-4": lambda run: claim_alignment(layers),
            "R-5": lambda run: claim_rate_sweep(run.load_arrays("rate_sweep"), of_layer(50)),
            "R-6 R-7": claims_depth,
            "R-8 R-9": lambda run: claims_rollouts(run.load_arrays("rollouts"), of_layer(10)),
            "R-10 R-11 R-12": claims_lstm,
        },
    )


def claim(
    number: int,
    source: str,
    statement: str,
    checks: list[Check],
    note: str | None = None,
    converged: Converged | None = None,
    revised: str | None = None,
) -> Claim:
    """A claim of the post; without checks it is undecided, for the reason in its note."""
    id = f"rossi2024/R-{number}"
    if not checks:
        return Claim(id, statement, source, (), note, revised=revised)
    return Claim(id, statement, source, tuple(checks), note=note, converged=converged, revised=revised)


def trained(arrays: dict[str, np.ndarray], label: str = "") -> Converged:
    """The guard of what is said about trained layers other than their loss: that loss, as R-2 bounds it."""
    return Converged(f"trained / GD loss{label}", at_most(1.01), arrays["final/loss"] / arrays["final/gd_loss"])


def claim_best_rate(rates: dict[str, np.ndarray]) -> Claim:
    gaps = zip(rates["contexts"], np.abs(rates["formula"] - rates["searched"]), strict=True)
    checks = [Check(f"|formula - line search|, C = {c}", at_most(0.1), (gap,)) for c, gap in gaps]
    return claim(1, "eq. for eta", "The formula for the best rate agrees with a line search", checks)


def claim_losses(layers: dict[int, dict[str, np.ndarray]]) -> Claim:
    plotted = {row["context"]: row["trained_final"] for row in published()["trained_vs_gd_loss"]}
    checks = []
    for c, arrays in layers.items():
        final, known = arrays["final/loss"], plotted.get(c)
        ratio = final / arrays["final/gd_loss"]
        checks.append(Check(f"trained / GD loss, same prompts, C = {c}", at_most(1.01), ratio))
        checks.append(Check(f"trained loss, closed form, C = {c}", relative(closed_form_loss(c), 0.02), final))
        if known is not None:
            checks.append(Check(f"trained loss, published curve, C = {c}", relative(known, 0.02), final))
    return claim(2, "Fig. 9", "A trained layer reaches the loss of one gradient step at every context length", checks)


def claim_speed(layers: dict[int, dict[str, np.ndarray]]) -> Claim:
    """Of the seeds that come to that loss: what is stuck elsewhere (R-2) has no such step."""
    steps = {c: steps_to_one_percent(arrays) for c, arrays in layers.items()}
    reached = {c: each[np.isfinite(each)] for c, each in steps.items()}
    medians = {c: float(np.median(each)) if each.size else np.inf for c, each in reached.items()}
    least = min(np.isfinite(each).mean() for each in steps.values())
    guard = Converged("least share of seeds that come within 1 %, over C", at_least(0.5), (least,))
    falling = all(later <= earlier for earlier, later in pairwise(medians.values()))
    note = "first steps: " + ", ".join(f"C = {c}: {m:g} ({len(reached[c])} seeds)" for c, m in medians.items())
    checks = [Check("median step to within 1 % never rises with C", is_true(), (float(falling),), converged=guard)]
    return claim(3, "Fig. 9", "Longer contexts reach the gradient-descent loss earlier", checks, note)


def steps_to_one_percent(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """For every seed the first recorded step whose loss is within 1 % of gradient descent's (infinite if none)."""
    close = arrays["eval"] <= 1.01 * arrays["gd_loss"]
    return np.where(close.any(0), arrays["step"][close.argmax(0)], np.inf)


def claim_alignment(layers: dict[int, dict[str, np.ndarray]]) -> Claim:
    """Published 1e-4, 1e-4 and 0.9998, each within a factor of three."""
    checks = []
    for c, arrays in layers.items():
        guard = trained(arrays, f", C = {c}")
        for name in ("prediction_error", "gradient_error"):
            label = f"{name.replace('_', ' ')}, C = {c}"
            checks.append(Check(label, at_most(3e-4), arrays[f"final/{name}"], converged=guard))
        checks.append(Check(f"1 - cosine, C = {c}", at_most(6e-4), 1 - arrays["final/cosine"], converged=guard))
    return claim(4, "Fig. 10", "The trained layer makes the predictions of gradient descent", checks)


def claim_rate_sweep(sweep: dict[str, np.ndarray], guard: Converged) -> Claim:
    rates, checks = sweep["rate"], []
    for name in ("prediction_error", "gradient_error"):
        fits = [np.polyfit(rates, column, 2) for column in sweep[name].T]
        minima = [-fit[1] / (2 * fit[0]) for fit in fits]
        pairs = zip(fits, sweep[name].T, strict=True)
        off = [np.abs(np.polyval(fit, rates) - column).max() / column.max() for fit, column in pairs]
        label = name.replace("_", " ")
        checks.append(Check(f"{label}: rate at the minimum of the parabola", relative(2.508, 0.02), minima))
        checks.append(Check(f"{label}: deviation from a parabola, share of the maximum", at_most(0.02), off))
    checks.append(Check("cosine: spread over rates", at_most(0.02), np.ptp(sweep["cosine"], axis=0)))
    # Published 0.99994 at every rate; a factor of three, as in R-4.
    checks.append(Check("1 - cosine, largest over rates", at_most(1.8e-4), 1 - sweep["cosine"].min(axis=0)))
    statement = "Errors are quadratic in the rate with one minimum at the best rate; the cosine is flat"
    return claim(5, "Fig. 12", statement, checks, converged=guard)


def claims_depth(run: Run) -> list[Claim]:
    """R-6 and R-7: loss against context length and depth, within a factor of two of the published curves."""
    softmax, linear = stacks_of(run, "softmax"), stacks_of(run, "linear")
    against = []  # linear below softmax, from C = 10 on, for one and two layers
    for depth in sorted(set(linear) & set(softmax) & {1, 2}):
        for c in sorted(c for c in set(linear[depth]) & set(softmax[depth]) if c >= 10):
            below = linear[depth][c]["eval"][-1] <= np.median(softmax[depth][c]["eval"][-1])
            against.append(Check(f"{depth} layers, C = {c}: below softmax", is_true(), below.astype(float)))
    none = "this preset trains no such stack"
    flat = (
        "trained by Muon: with Adam two layers at C = 26 ended near 0.042 in every early run: rates from 1e-3 to 4e-3, "
        "batches of 64 and 128, the query among the keys or not"
    )
    statement = "{} transformers: the loss falls with context length and depth"
    return [
        claim(6, "Fig. 7", statement.format("Softmax"), depth_checks(softmax, "softmax"), flat if softmax else none),
        claim(
            7, "Fig. 8", statement.format("Linear"), depth_checks(linear, "linear") + against, None if linear else none
        ),
    ]


def depth_checks(found: dict[int, dict[int, dict[str, np.ndarray]]], kind: str) -> list[Check]:
    """Against the published curves, falling with C, and falling with depth."""
    plotted, checks = published()[f"loss_vs_context_{kind}_transformer"], []
    between = published()["softmax_more_contexts"] if kind == "softmax" else {}
    for depth, row in found.items():
        known: dict[int, float] = {}
        for curve in (plotted[f"Transformer ({depth} layers)"], between.get(str(depth))):
            known |= dict(zip(curve["x"], curve["median"], strict=True)) if curve else {}
        finals = {c: arrays["eval"][-1] for c, arrays in row.items()}
        for c, final in finals.items():
            if kind == "linear" and depth == 1:
                rule = relative(closed_form_loss(c), 0.02)
                checks.append(Check(f"1 layer, C = {c}: loss, closed form", rule, final))
            elif known.get(c, 0) > 1e-7:  # below, the published curves are rounding
                # The published single layer is unstable (it rises again with C), so it only bounds ours from above.
                rule = at_most(2.0) if kind == "softmax" and depth == 1 else within(0.5, 2.0)
                checks.append(Check(f"{depth} layers, C = {c}: loss / published", rule, final / known[c]))
        if depth > 1 and len(finals) > 1:
            ordered = np.stack(list(finals.values()))
            falling = np.all(ordered[1:] <= ordered[:-1], axis=0)
            checks.append(Check(f"{depth} layers: loss falls with C", is_true(), falling.astype(float)))
    for shallow, deep in zip(list(found), list(found)[1:], strict=False):
        for c in sorted(set(found[shallow]) & set(found[deep])):
            better = found[deep][c]["eval"][-1] <= found[shallow][c]["eval"][-1]
            checks.append(Check(f"C = {c}: {deep} layers below {shallow}", is_true(), better.astype(float)))
    return checks


def claims_rollouts(rollouts: dict[str, np.ndarray], guard: Converged) -> list[Claim]:
    """R-8 and R-9: the looped layer under dampening."""
    at = {float(d): i for i, d in enumerate(rollouts["dampening"])}
    checks, looped = [], published()["looped_gradient_step"]
    for dampening, row in zip(looped["dampening"], looped["loss"], strict=True):
        for loop, expected in zip(looped["loops"], row, strict=True):
            values = rollouts["gd"][:, at[dampening], loop - 1]
            checks.append(Check(f"GD, dampening {dampening}, loop {loop}", relative(expected, 0.05), values))
    for dampening, expected in ((0.7, True), (0.75, True), (0.8, False), (1.0, False)):
        as_expected = [float(stable(losses[at[dampening]]) == expected) for losses in rollouts["gd"]]
        name = "stable" if expected else "diverges"
        checks.append(Check(f"GD {name} at dampening {dampening}", is_true(), as_expected))
    limit = {
        name: [max((d for d in at if stable(losses[at[d]])), default=0.0) for losses in rollouts[name]]
        for name in ("trained", "trained_few", "trained_y")
    }
    whole = Check("largest stable dampening, whole token rewritten", absolute(0.70, 0.05), limit["trained"])
    about = "Looping the trained layer is stable up to a dampening of about 0.70"
    final = ", ".join(f"{d:g}: {np.median(rollouts['trained'][:, at[d], -1]):.3g}" for d in (0.5, 0.65, 0.7, 0.75))
    note = (
        f"with only the target rewritten, the same layers are stable up to {np.median(limit['trained_y']):g}, on "
        f"{FEW:,} prompts, among which fewer diverge, up to {np.median(limit['trained_few']):g}; "
        f"loss at the last loop by dampening, whole token rewritten: {final}; it hangs on how exact the weights are: "
        "of layers trained at 1e-2 in place of 3e-3, as near to the loss of gradient descent, the limit was 0.5 or 0.6"
    )
    return [
        claim(8, "Fig. 13", "Looping the gradient step is stable up to dampening 0.75 only", checks),
        claim(9, "Fig. 13", about, [whole], note, guard),
    ]


def stable(losses: np.ndarray) -> bool:
    """Whether the loss of a roll-out is finite at the end and not above that of its first loop.

    The published curves are clear by this rule: at 50 loops .18 to .21 from .9 to 1.06 where stable, else 1.29 or NaN.
    Whether the loss still falls at the end would be another question: trained weights are not exact, and slowly drift.
    """
    return bool(np.isfinite(losses[-1]) and losses[-1] <= losses[0])


def claims_lstm(run: Run) -> list[Claim]:
    """R-10 .. R-12: LSTMs of different depth (their width is not published; 64 here).

    Cosines and prediction errors are judged on LSTMs whose loss is as R-10 and R-11 bound it.
    """
    forward, both, below, ends = [], [], [], []
    plotted = published()["bidirectional_lstms"]
    expected = dict(zip(plotted["layers"], zip(plotted["loss"], plotted["cosine"], strict=True), strict=True))
    for depth, arrays in lstms_of(run, "uni").items():
        loss = arrays["eval"][-1]
        guard = Converged(f"{depth} layers: loss", at_most(1.18), loss)
        forward.append(Check(f"{depth} layers: loss / GD loss", at_least(1.0), loss / arrays["gd_loss"]))
        forward.append(Check(f"{depth} layers: loss", at_most(1.18), loss))
        nearest = np.abs(arrays["eval"] - FORWARD_LOSS).argmin(0)
        cosine = arrays["to_gd/cosine"][nearest, np.arange(loss.size)]
        label = f"{depth} layers: cosine where the loss is nearest to {FORWARD_LOSS:g}"
        forward.append(Check(label, within(0.71, 0.84), cosine, converged=guard))
        ends.append(f"{depth} layers: loss {np.median(loss):.3f}, cosine {np.median(arrays['final/cosine']):.3f}")
    for depth, arrays in lstms_of(run, "bi").items():
        loss, cosine = expected[depth]
        guard = Converged(f"{depth} layers: loss", at_most(loss + 0.05), arrays["eval"][-1])
        both.append(Check(f"{depth} layers: loss", absolute(loss, 0.05), arrays["eval"][-1]))
        both.append(Check(f"{depth} layers: cosine", absolute(cosine, 0.05), arrays["final/cosine"], converged=guard))
        if depth >= 4:
            error = arrays["final/prediction_error"]
            below.append(Check(f"{depth} layers: loss / GD loss", at_most(1.0), arrays["eval"][-1] / arrays["gd_loss"]))
            below.append(Check(f"{depth} layers: prediction error", at_least(0.05), error, converged=guard))
    falling = {depth: np.median(arrays["eval"], axis=1) for depth, arrays in lstms_of(run, "bi").items()}
    late = "fall of the loss in the last fifth of the steps: " + ", ".join(
        f"{depth} layers {loss[-1 - len(loss) // 5] - loss[-1]:.3f}" for depth, loss in falling.items()
    )
    need = (
        "with Muon at 1e-2 two layers that read both ways are at 1.085 after 3,500 steps of 64 prompts and still fall; "
        "8,000 steps take .7, 2.4 and 5.4 CPU minutes a seed with one, two and four: the preset `full`"
    )
    plain = "this preset trains no such LSTM; with Muon at 1e-2 one layer takes 24 CPU seconds a seed: `small`"
    above = "Unidirectional LSTMs stay above gradient descent at every depth"
    close = "Bidirectional LSTMs of two or more layers come close to gradient descent"
    beyond = "Deep bidirectional LSTMs go below the loss of gradient descent without being it"
    revised = (
        "the loss is bounded by gradient descent's from below and by the largest published one, 1.18, from above: the "
        "published 1.06 to 1.18, the bounds at first, is where the post's budget of training ends (Figs. 14, 15), and "
        "one layer trained further or faster goes below; so the cosine, published for a loss of 1.11 to 1.13, is "
        "compared where training passes that loss, no longer at the end"
    )
    return [
        claim(
            10, "Figs. 14, 15", above, forward, f"at the end: {'; '.join(ends)}" if forward else plain, revised=revised
        ),
        claim(11, "Figs. 14, 16", close, both, late if both else need),
        claim(12, "Figs. 14, 16", beyond, below, late if below else need),
    ]
