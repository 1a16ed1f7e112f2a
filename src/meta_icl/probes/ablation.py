"""Ablation: what is lost without a head or an MLP, one by one and the strongest together, against random heads.

What is shown. The loss of the prompts with one head's answer (`z`) or one MLP's (`mlp_out`) set to zero, less the loss
of the whole network; then the most important heads removed together, against as many random heads of the same layers.

What it says. Later layers react to what is missing, so a small loss does not prove that a head does nothing; and a loss
far from what the network ever saw may come from the zero itself.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from meta_icl.errors import BadInput
from meta_icl.models import Intervention
from meta_icl.plotting import Chart, Lines, Series
from meta_icl.probes._shared import Measured, head_map, over_prompts, strongest
from meta_icl.probes._subject import Subject, require_site

TOGETHER = (1, 2, 4, 8, 16)
CONTROLS = 8


def check(subject: Subject) -> None:
    """Raise `BadInput` unless the network names heads' answers `z` or MLPs' answers `mlp_out`."""
    require_site(subject, "resid_post", "one whose blocks name their parts")
    trace = subject.shape_of_trace()
    if "z" not in trace and "mlp_out" not in trace:
        raise BadInput("the network names neither heads (`z`) nor MLPs (`mlp_out`), so there is nothing to remove")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`whole` "prompts"; `heads` "prompts l h" and `mlps` "prompts l", what each removal adds to the loss.

    `together` "prompts k" and `control` "prompts k draws": the strongest 1, 2, 4, .. heads, and random ones of the same
    layers; `sizes` "k" says how many.
    """
    trace = subject.shape_of_trace()
    whole = np.asarray(subject.losses())
    found = {"whole": whole}
    if "mlp_out" in trace:
        layers = trace.layers_of("mlp_out")
        masks = jnp.eye(subject.network.n_layers, dtype=bool)[jnp.array(layers)][:, :, None, None]
        found["mlps"] = _each(subject, "mlp_out", masks) - whole[:, None]
        found["mlp_layers"] = np.array(layers)
    if "z" in trace:
        layers, heads = trace.layers_of("z"), trace["z"].shape[1]
        n = len(layers)
        one = np.zeros((n * heads, subject.network.n_layers, heads), bool)
        for i in range(n * heads):
            one[i, layers[i // heads], i % heads] = True
        lost = _each(subject, "z", one[..., None, None]) - whole[:, None]
        found |= {"heads": lost.reshape(-1, n, heads), "layers": np.array(layers)}
        found |= _together(subject, found["heads"].mean(0), layers, whole)
    return found


def rows(measured: Measured) -> list[dict[str, Any]]:
    """The ten parts whose removal costs most, then the strongest heads together with their controls."""
    parts = []
    if "heads" in measured:
        mean, error = over_prompts(measured["heads"])
        parts += [
            (mean[i, h], error[i, h], f"layer {int(measured['layers'][i]) + 1}, head {h + 1}")
            for i, h in strongest(mean, 10)
        ]
    if "mlps" in measured:
        mean, error = over_prompts(measured["mlps"])
        parts += [(mean[i], error[i], f"layer {int(at) + 1}, MLP") for i, at in enumerate(measured["mlp_layers"])]
    parts = sorted(parts, key=lambda part: -part[0])[:10]
    found = [
        {"removed": name, "loss added": float(mean), "+-": float(error), "random heads instead": None}
        for mean, error, name in parts
    ]
    for k, size in enumerate(measured.get("sizes", ())):
        mean, error = over_prompts(measured["together"])
        found.append(
            {
                "removed": f"the strongest {int(size)} heads" if size > 1 else "the strongest head",
                "loss added": float(mean[k]),
                "+-": float(error[k]),
                "random heads instead": float(measured["control"][:, k].mean()),
            }
        )
    return found


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """What each head's removal costs, and the strongest together against random ones."""
    charts: dict[str, Chart] = {}
    with_heads = {label: m for label, m in found.items() if "heads" in m}
    if with_heads:
        caption = "Loss without the head less the loss of the whole network, mean over prompts."
        charts["heads"] = head_map("What is lost without a head", with_heads, "heads", caption, diverging=True)
        series = []
        for label, m in with_heads.items():
            series.append(Series(label, m["sizes"], m["together"].mean(0)))
            drawn = m["control"].mean(0)
            series.append(
                Series(f"{label}: random heads", m["sizes"], drawn.mean(1), drawn.min(1), drawn.max(1), "dashed")
            )
        charts["together"] = Lines(
            "Several heads removed together",
            "heads removed",
            "loss added",
            series,
            log_x=True,
            caption=f"Dashed: as many random heads of the same layers, mean and range of {CONTROLS} draws.",
        )
    return charts


def _each(subject: Subject, site: str, masks: Any) -> np.ndarray:
    """The losses "prompts sets" with each of some masks "sets layers ..." of a site set to zero."""
    return np.stack([np.asarray(subject.losses((Intervention(site, mask),))) for mask in masks], axis=1)


def _together(subject: Subject, lost: np.ndarray, layers: tuple[int, ...], whole: np.ndarray) -> dict[str, np.ndarray]:
    n, heads = lost.shape
    sizes = [k for k in TOGETHER if k < n * heads] or [1]
    rng, sets, controls = np.random.default_rng(0), [], []
    for k in sizes:
        chosen = strongest(lost, k)
        mask = np.zeros((subject.network.n_layers, heads), bool)
        for i, h in chosen:
            mask[layers[i], h] = True
        sets.append(mask)
        for _ in range(CONTROLS):
            drawn = np.zeros_like(mask)
            for layer in np.flatnonzero(mask.any(1)):
                # From the other heads, as far as there are enough of them.
                order = sorted(rng.permutation(heads), key=lambda head, layer=layer: bool(mask[layer, head]))
                drawn[layer, order[: mask[layer].sum()]] = True
            controls.append(drawn)
    together = _each(subject, "z", np.stack(sets)[..., None, None]) - whole[:, None]
    control = _each(subject, "z", np.stack(controls)[..., None, None]) - whole[:, None]
    return {
        "sizes": np.array(sizes),
        "together": together,
        "control": control.reshape(len(whole), len(sizes), CONTROLS),
    }
