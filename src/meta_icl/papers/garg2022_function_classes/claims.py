"""The claims of Garg et al. (2022), judged from a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meta_icl.algorithms import best_training_vector_error
from meta_icl.runs import Run, asked, read_json
from meta_icl.runs.claims import Check, Claim, Converged, Rule, absolute, at_least, at_most, is_true, within

from .config import Training
from .experiments import (
    ALPHAS,
    BASELINE_KS,
    NOISE_KS,
    PUBLISHED_D,
    QUERY_SCALES,
    SCALES,
    SIZES,
    part_arrays,
    trainings_of,
)
from .readings import OURS, claim, first_step
from .small_forms import small_claims

PUBLISHED = read_json(Path(__file__).with_name("published.json"))
TABLE_PROMPTS = 1500  # behind the tabulated values of reference learners
ROUNDING = 1e-3  # of float32 solutions, where a closed form is zero


def claims(run: Run) -> list[Claim]:
    """F-1 .. F-19, the reference learners B-1 .. B-6, and T-1 .. T-5; tolerances are those set for the reproduction."""
    trained = {t.name: (t, run.part(t.name).load_arrays("result")) for t in trainings_of(run)}
    return asked(
        run,
        {
            " ".join((*(f"B-{i}" for i in range(1, 7)), "F-19")): reference_claims,
            " ".join(("T-1", *LINEAR)): lambda run: linear_claims(trained),
            "F-12 F-13 F-14 F-15": lambda run: family_claims(run, trained),
            "F-16 F-17 F-18": lambda run: size_claims(trained),
            "T-2 T-3 T-4 T-5": lambda run: small_claims(trained),
        },
    )


def averaging_on_orthants(k: int, d: int) -> float:
    """e_k of averaging when the context lies in one orthant: tr E (A - I)^2 / d for A = (1/k) sum x_i x_i^T.

    E A = C = (1 - 2/pi) I + (2/pi) s s^T for signs s, and tr E (x x^T)^2 = d (d + 2). For d = 20 it is above 8 up to
    k = 40, as tabulated.
    """
    c = 2 / np.pi
    squares = (d - 1) * (1 - c) ** 2 + (1 - c + c * d) ** 2  # tr C^2
    return ((d + 2) * d / k + (1 - 1 / k) * squares - d) / d


def reference_claims(run: Run) -> list[Claim]:
    """Learners that need no training, at d = 20; tolerances by the rule in the paper's docstring."""
    found = part_arrays(run, "baseline-linear")
    n = int(found["prompts"])

    def theory(name: str, expected: Mapping[int, float], ks: tuple[int, ...] = BASELINE_KS) -> list[Check]:
        deviation = {k: found[f"{name}_deviation"][ks.index(k)] for k in expected}
        rules = {k: absolute(value, 3 * deviation[k] / n**0.5 + ROUNDING) for k, value in expected.items()}
        return checks(name, rules, ks, "closed form")

    def table(name: str, ks: tuple[int, ...] = BASELINE_KS) -> list[Check]:
        known, rules = PUBLISHED["references"][name], {}
        for k, value in zip(known["k"], known["value"], strict=True):
            error = found[f"{name}_deviation"][ks.index(k)] * (1 / TABLE_PROMPTS + 1 / n) ** 0.5
            last_digit = 10.0 ** -len(str(value).split(".")[1])
            rules[k] = absolute(value, 3 * error + last_digit / 2)
        return checks(name, rules, ks, "table")

    def checks(name: str, rules: Mapping[int, Rule], ks: tuple[int, ...], against: str) -> list[Check]:
        label = name.replace("_", ", ")
        return [Check(f"{label}, {against}: e at k = {k}", rule, found[name][ks.index(k)]) for k, rule in rules.items()]

    plain = [
        *theory("plain_squares", {5: 0.75, 10: 0.5, 20: 0.0}),
        *theory("plain_averaging", {k: 21 / k for k in BASELINE_KS}),
        *table("plain_squares"),
        *table("plain_averaging"),
        *table("plain_neighbours"),
    ]
    changed = [
        *table("orthants_neighbours"),
        *theory("orthants_averaging", {k: averaging_on_orthants(k, PUBLISHED_D) for k in (10, 20, 40)}),
        *table("skewed_squares"),
        *table("skewed_neighbours"),
        *theory("half_squares", {5: 0.5, 10: 0.0, 20: 0.0, 40: 0.0}),
        *table("half_squares"),
    ]
    # (1 - k/d)+ and the trace of an inverse Wishart matrix, which has no mean for |k - d| < 2
    noise = theory("noisy_squares", {10: 0.5 + 10 / 9 / 20, 30: 1 / 9, 40: 1 / 19}, NOISE_KS)
    noise += table("noisy_squares", NOISE_KS)
    peak = NOISE_KS[int(found["noisy_squares_median"].argmax())]
    noise.append(Check("k of the largest median error", absolute(PUBLISHED_D, 0), peak))
    sparse = part_arrays(run, "baseline-lasso")
    raw, sign = (part_arrays(run, f"baseline-trees-{inputs}") for inputs in ("raw", "sign"))
    net = part_arrays(run, "baseline-networks")
    trees = [
        Check("greedy, raw inputs", absolute(0.80, 0.14), raw["greedy"]),
        Check("boosted, raw inputs", absolute(0.62, 0.05), raw["boosted"]),
        Check("greedy, signs", absolute(0.50, 0.05), sign["greedy"]),
        Check("boosted, signs", absolute(0.31, 0.05), sign["boosted"]),
    ]
    of_prompts = (
        "the published 0.80 of greedy trees on raw inputs rests on 1,280 prompts, a standard error of 0.044: it is met "
        "within three of them, 0.14, no longer within 0.05"
    )
    networks = [Check("on networks, k = 100", absolute(0.17, 0.04), net["network"])]
    pairs = zip((20, 50, 100), (0.37, 0.04, 0.003), net["linear"], strict=True)
    networks += [Check(f"on linear functions, k = {k}", within(v / 2, 2 * v), e) for k, v, e in pairs]
    lassos = [
        Check("k = 5", absolute(0.62, 0.1), sparse["error"][0]),
        Check("k = 10", absolute(0.08, 0.05), sparse["error"][1]),
        Check("the best weight of the penalty at k = 10", absolute(0.01, 0), ALPHAS[int(sparse["by_alpha"].argmin())]),
    ]
    pools = [
        Check("10,000 vectors", absolute(0.505, 0.02), best_training_vector_error(10_000, PUBLISHED_D)),
        Check("32 million vectors", absolute(0.216, 0.02), best_training_vector_error(32_000_000, PUBLISHED_D)),
    ]
    return [
        claim("B-1", "Least squares, averaging and three neighbours on linear functions", "Fig. 2", plain),
        claim("B-2", "The same on skewed, half-subspace and orthant prompts", "Figs. 4, 8", changed),
        claim("B-3", "Least squares has a double descent under label noise", "Fig. 4b", noise),
        claim("B-4", "The Lasso (0.01) on sparse functions", "Fig. 5a", lassos),
        claim(
            "B-5", "Greedy and boosted trees on decision trees after 100 examples", "Fig. 5b", trees, revised=of_prompts
        ),
        claim("B-6", "A network trained on each prompt by gradient descent", "Fig. 5c, 5d", networks),
        claim("F-19", "The best of all training vectors is far from a new one", "App. B.7", pools),
    ]


LINEAR = {  # the claims about the network trained on linear functions
    "F-1": ("The error follows 1 - k/d and is nearly zero at 2d examples", "Fig. 2"),
    "F-2": ("The gradient by the query is w projected on the span of the context", "Fig. 3b"),
    "F-3": ("Scaling the query alone changes the normalised error (over the scale squared) little", "Fig. 7"),
    "F-4": ("Skewed inputs: as least squares to k = d/2, and mostly below half of three neighbours", "Fig. 4a"),
    "F-5": ("Inputs in a half subspace: the error falls as on plain prompts", "Fig. 8b"),
    "F-6": ("Label noise: the error has a second peak near k = d", "Fig. 4b"),
    "F-7": ("Scaled weights: the normalised error stays small", "Fig. 9b"),
    "F-8": ("Scaled inputs: errors rise away from the scale of training", "Fig. 9a"),
    "F-9": ("Context and query in different orthants: small errors, unlike three neighbours", "Fig. 4c"),
    "F-10": ("A query orthogonal to the context is answered as if nothing were known", "Fig. 8d"),
    "F-11": ("A query that matches a context row is answered with its label", "Fig. 8e"),
}


def linear_claims(trained: Mapping[str, tuple[Training, dict[str, np.ndarray]]]) -> list[Claim]:
    """T-1 and F-1 .. F-11, of the network on plain linear functions with the largest d."""
    plain = [(t, a) for t, a in trained.values() if "to_w" in a and t.d <= PUBLISHED_D]
    out = [bayes_claim(trained)]
    if not plain:
        why = "this preset trains no network on linear functions"
        return out + [claim(id, statement, source, [], why) for id, (statement, source) in LINEAR.items()]
    t, a = max(plain, key=lambda pair: (pair[0].d, list(SIZES).index(pair[0].size), pair[0].curriculum))
    d, ks, error = t.d, (t.d // 2, t.d, 2 * t.d), a["plain_error"]

    # What GD++ of as many layers reaches: the published bounds are those of 12 layers at d = 20.
    bound = {name.removeprefix("bound_"): values for name, values in a.items() if name.startswith("bound_")}

    def up_to(value: float, reached: float) -> Rule:
        return at_most(max(value, reached))

    def up_to_factor(value: float, reached: float) -> Rule:
        return within(value / 3, 3 * value) if d == PUBLISHED_D else up_to(3 * value, reached)

    def reached(name: str, n: int) -> np.ndarray:
        return bound.get(name, np.zeros(n))

    def at_ks(name: str, values: Any, rule: Any) -> list[Check]:
        """Where the rates of the bound, those for plain prompts, do not suit, it is what they reach on plain ones."""

        def three(columns: np.ndarray) -> np.ndarray:
            return columns if len(columns) == 3 else columns[list(ks)]

        best = np.minimum(three(reached(f"{name}_error", 3)), three(reached("error", 2 * d + 1)))
        rows = zip(ks, values, three(a[f"{name}_error"].T), best, strict=True)
        return [Check(f"e at k = {k}", rule(v, b), column) for k, v, column, b in rows if v is not None]

    # Of the prompts of training, which only F-1 judges; least squares leave 1 - k/d, the zero predictor 1.
    least = np.maximum(1 - np.arange(error.shape[1]) / d, 0).mean()
    guard = Converged("error / that of least squares, mean over k", at_most(1.5), error.mean(1) / least)
    falling, plain_bound = 1 - np.arange(d) / d, reached("error", 2 * d + 1)
    below = np.abs(error[:, :d] - falling[None]).max(1)
    below_bound = np.abs(plain_bound[:d] - falling).max() if bound else 0.0
    half = d // 2
    skewed_gap = np.abs(a["skewed_error"] - a["skewed_least_squares"][None])[:, : half + 1].max(1)
    far_below = (a["skewed_error"] < 0.5 * a["skewed_neighbours"][None])[:, half:].mean(1)
    peak = half + 1 + np.argmax(a["noisy_median"][:, half + 1 :], axis=1)
    scaled = a["x_scale_error"]
    query = a["query_scale_error"]
    orthant_ratio = a["orthants_neighbours"][:, 0] / a["orthants_error"][:, 1]
    names, known = [f"scale {s:.2g}" for s in SCALES], PUBLISHED["networks"]
    checks = {
        "F-1": [
            Check("largest |e - (1 - k/d)| for k < d", up_to(0.05, below_bound), below),
            Check(f"e at k = {d}", up_to(0.05, plain_bound[d]), error[:, d]),
            Check(f"e at k = {2 * d}", up_to(0.005, plain_bound[2 * d]), error[:, 2 * d]),
        ],
        "F-2": [
            Check(f"cosine with projected w, k = {half}", at_least(0.95), a["to_projection"][:, 0]),
            Check(f"cosine with w, k = {2 * d}", at_least(0.95), a["to_w"][:, 2]),
        ],
        "F-3": [
            Check(f"e / e of the plain query, scale {s:.3g}", at_most(2.0), query[:, i + 1] / query[:, 0])
            for i, s in enumerate(QUERY_SCALES)
        ],
        "F-4": [
            Check("largest distance to least squares, k <= d/2", at_most(0.05), skewed_gap),
            Check("share of k >= d/2 below half of three neighbours", at_least(0.5), far_below),
        ],
        "F-5": at_ks("half", known["half"], up_to_factor),
        "F-6": [Check("|k of the peak - d|", at_most(max(1, 3 * d / PUBLISHED_D)), np.abs(peak - d))],
        "F-7": [
            Check(f"e at 2d, {name}", up_to_factor(v, b), column)
            for name, v, column, b in zip(
                names, known["w_scale"], a["w_scale_error"].T, reached("w_scale_error", len(names)), strict=True
            )
        ],
        "F-8": [
            Check("error at 1/3 above that at 1/2", is_true(), (scaled[:, 0] > scaled[:, 1]).astype(float)),
            Check("error at 3 above that at 2", is_true(), (scaled[:, 3] > scaled[:, 2]).astype(float)),
            *(
                Check(f"e at 2d, {name}", up_to_factor(v, 0.0), column)
                for name, v, column in zip(names, known["x_scale"], scaled.T, strict=True)
            ),
        ],
        "F-9": [
            *at_ks("orthants", known["orthants"], up_to_factor),
            Check("error of three neighbours / error, k = d", at_least(3.0), orthant_ratio),
        ],
        "F-10": [
            Check(f"e at k = {k}", absolute(1.0, 0.1), column)
            for k, column in zip((half, d - 1), a["orthogonal_error"].T, strict=True)
        ],
        "F-11": at_ks("matching", (0.01, 0.01, 0.01), up_to),
    }
    by_layers = (
        "at another size than the published one an error may also be that of GD++ of as many layers, with the best "
        "rates for every length of context: the bounds are of 12 layers at d = 20, and three layers of GD++ at d = 5 "
        "leave about 0.155 and 0.007 to 0.011 after d and 2d examples"
    )
    many = (
        "measured on 10,000 prompts; the published 1,280 know an error near 1 to .05 only, which is what is asked: at "
        "first two runs of six layers were off by .064 there at k = 1, and by .055 at k = 0, where every answer is 0"
    )
    revised = dict.fromkeys(("F-5", "F-7", "F-9", "F-11"), by_layers if bound else None) | {
        "F-1": f"{many}; {by_layers}" if bound else many,
        "F-6": "the peak of the median over 10,000 prompts, at first of the mean over 1,280: errors near k = d have no "
        "mean even for least squares (B-3)",
        "F-8": "errors are compared on each side of the scale of training by itself; at first both outer scales had to "
        "be above both inner ones, but too small and too large inputs are two different changes",
    }
    return out + [
        claim(id, statement, source, checks[id], converged=None if id == "F-1" else guard, revised=revised.get(id))
        for id, (statement, source) in LINEAR.items()
    ]


def bayes_claim(trained: Mapping[str, tuple[Training, dict[str, np.ndarray]]]) -> Claim:
    checks = [
        Check(f"error / Bayes error at k = {2 * t.d}", at_most(1.3), a["error"][-1][:, 2 * t.d] / a["bayes"][2 * t.d])
        for t, a in trained.values()
        if t.noise
    ]
    statement = "A decoder on noisy linear functions (d = 5) comes within 1.3 of the Bayes error at 2d examples"
    deeper = (
        "of a decoder of six layers, at first of the paper's tiny one of three, which had failed with 1.49 after "
        "42,000 steps of a rate with a short rise"
    )
    need = "this preset trains no network on noisy labels"
    return claim("T-1", statement, "this laboratory", checks, need, revised=deeper)


def family_claims(run: Run, trained: Mapping[str, tuple[Training, dict[str, np.ndarray]]]) -> list[Claim]:
    """F-12 .. F-15: other families at d = 20; the reference learners of these figures are B-4 to B-6."""
    at_size = {t.family: a for t, a in trained.values() if t.d == PUBLISHED_D and t.size == "standard"}
    raw, sign = (part_arrays(run, f"baseline-trees-{inputs}") for inputs in ("raw", "sign"))
    strongest = min(float(arrays[name][0]) for arrays in (raw, sign) for name in ("greedy", "boosted"))

    def errors(family: str, rules: Mapping[int, Rule], name: str = "error") -> list[Check]:
        if family not in at_size:
            return []
        found = at_size[family][name]
        last = found[-1] if name == "error" else found
        return [Check(f"e at k = {k}", rule, last[:, k]) for k, rule in rules.items()]

    on_trees = errors("tree", {100: absolute(0.12, 0.05)})
    if on_trees:
        lower = at_size["tree"]["error"][-1][:, 100] < strongest
        on_trees.append(Check("below every reference learner", is_true(), lower * 1.0))
    transfer = {k: within(v / 2, 2 * v) for k, v in ((20, 0.34), (50, 0.05), (100, 0.01))}
    need = "a standard decoder at d = 20 trained for 500,000 steps, 7 hours of a GPU: `paper`; F-12 in small: T-2"
    on_sparse = errors("sparse", {5: absolute(0.58, 0.1), 10: absolute(0.09, 0.05)})
    on_nets = errors("network", {100: absolute(0.17, 0.04)})
    return [
        claim("F-12", "Sparse functions: as good as the Lasso", "Fig. 5a", on_sparse, need),
        claim("F-13", "Decision trees: better than greedy and boosted trees", "Fig. 5b", on_trees, need),
        claim("F-14", "Networks: as good as gradient descent on each prompt", "Fig. 5c", on_nets, need),
        claim(
            "F-15",
            "The decoder trained on networks also learns linear functions",
            "Fig. 5d",
            errors("network", transfer, "on_linear"),
            need,
        ),
    ]


def size_claims(trained: Mapping[str, tuple[Training, dict[str, np.ndarray]]]) -> list[Claim]:
    """F-16 .. F-18: size of the model, curriculum, and pools."""
    linear = {t: a for t, a in trained.values() if t.family == "linear" and not t.noise and t.d > OURS}
    full = {(t.size, t.d): a["error"][-1][:, 2 * t.d] for t, a in linear.items() if t.curriculum and not t.functions}
    order, bigger = [size for size in SIZES if any(size == trained for trained, _ in full)], []
    for small, large in zip(order, order[1:], strict=False):
        for d in sorted({d for _, d in full}):
            if (small, d) in full and (large, d) in full:
                falls = float(np.median(full[large, d]) <= np.median(full[small, d]))
                bigger.append(Check(f"d = {d}: {large} below {small}", is_true(), falls))
    for size in order:
        column = [np.median(full[size, d]) for d in sorted({d for _, d in full}) if (size, d) in full]
        if len(column) > 1:
            bigger.append(Check(f"{size}: rises with d", is_true(), float(np.all(np.diff(column) >= 0))))
    faster = []
    plain = {
        t.d: a for t, a in linear.items() if t.size == "standard" and not (t.curriculum or t.functions or t.prompts)
    }
    taught = {t.d: a for t, a in linear.items() if t.size == "standard" and t.curriculum and not t.functions}
    for d in sorted(set(plain) & set(taught)):
        ratio = first_step(plain[d], d) / first_step(taught[d], d)
        faster.append(Check(f"d = {d}: steps without / with curriculum to e < 0.1 at 2d", at_least(1.5), ratio))
    pools = {t: a["error"][-1][:, 2 * t.d] for t, a in linear.items() if t.functions or t.prompts}

    def near(value: float) -> Rule:  # "near unrestricted": as near as F-1 asks the curve to be
        return absolute(value, 0.05)

    learned = [
        Check(f"e at 2d, {t.functions or t.prompts} {'functions' if t.functions else 'prompts'}", at_most(0.5), e)
        for t, e in pools.items()
        if t.functions >= 1_000 or t.prompts >= 100_000
    ]
    if ("standard", PUBLISHED_D) in full:
        free = float(np.median(full["standard", PUBLISHED_D]))
        learned += [
            Check(f"e at 2d, {t.functions or t.prompts} {'functions' if t.functions else 'prompts'}", near(free), e)
            for t, e in pools.items()
            if t.functions >= 10_000 or t.prompts >= 1_000_000
        ]
    need = "a ladder of networks of 500,000 steps, 7 hours of a GPU each at d = 20: `paper`; in small: T-3 to T-5"
    return [
        claim("F-16", "The error at 2d falls with the size of the network and rises with d", "Fig. 6a", bigger, need),
        claim("F-17", "A curriculum speeds training up", "Fig. 12", faster, need),
        claim(
            "F-18",
            "1,000 functions or 100,000 prompts are enough to learn from, ten times as many nearly as good as all",
            "Fig. 14",
            learned,
            need,
        ),
    ]
