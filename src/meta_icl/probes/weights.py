"""Weights: what every head's products say: what attends to what (QK), and what is written when attended to (OV).

What is shown. W_Q W_K^T and W_V W_O of every head act on the stream; their eigenvalues and sizes do not depend on how a
product is split. The copying score, sum Re(lambda) / sum |lambda| of OV, is 1 for a head that adds what it attends to,
-1 for one that takes it away.

What it says. Products are those of the bare stream: norms, rotary positions and biases between are left out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_icl.analysis import copying_score, eigenvalues
from meta_icl.errors import BadInput
from meta_icl.models import AttentionLayer
from meta_icl.plotting import Chart, Heatmaps, Lines, Panel, Series
from meta_icl.probes._shared import Measured, head_map
from meta_icl.probes._subject import Subject

WIDEST_MAP = 32  # channels of a stream whose products are drawn whole


def check(subject: Subject) -> None:
    """Raise `BadInput` unless some block of the network mixes by attention."""
    if not _attention(subject.network):
        raise BadInput("the network has no block with attention, so no products of weights")


def measure(subject: Subject) -> dict[str, np.ndarray]:
    """`qk`, `ov` "l heads d d" (of narrow streams), their `qk_eigenvalues`, `ov_eigenvalues`, sizes and `copying`."""
    found = _attention(subject.network)
    factors = [_factors(mixer) for mixer in found.values()]
    measured = {"layers": np.array(list(found))}
    for name, at in (("qk", 0), ("ov", 1)):
        # The non-zero eigenvalues of A B are those of B A, which is as small as a head.
        small = np.stack([right @ left for left, right in (pair[at] for pair in factors)])
        measured[f"{name}_eigenvalues"] = eigenvalues(small)
        measured[f"{name}_size"] = np.stack([_size(left, right) for left, right in (pair[at] for pair in factors)])
        if small.shape[-1] and factors[0][at][0].shape[-2] <= WIDEST_MAP:
            measured[name] = np.stack([left @ right for left, right in (pair[at] for pair in factors)])
    small = np.stack([right @ left for left, right in (pair[1] for pair in factors)])
    return measured | {"copying": copying_score(small)}


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per layer and head."""
    layers, heads = measured["copying"].shape
    return [
        {
            "layer": int(measured["layers"][i]) + 1,
            "head": h + 1,
            "|QK|": float(measured["qk_size"][i, h]),
            "|OV|": float(measured["ov_size"][i, h]),
            "copying": float(measured["copying"][i, h]),
            "largest eigenvalue of QK": _told(measured["qk_eigenvalues"][i, h, 0]),
            "of OV": _told(measured["ov_eigenvalues"][i, h, 0]),
        }
        for i in range(layers)
        for h in range(heads)
    ]


def figures(found: Mapping[str, Measured]) -> dict[str, Chart]:
    """Copying by head, eigenvalues in the plane, and the products themselves where the stream is narrow."""
    batched = {label: dict(m) | {"copying": m["copying"][None]} for label, m in found.items()}
    caption = "sum Re(lambda) / sum |lambda| of W_V W_O: 1 copies, -1 takes away (Elhage et al., 2021)."
    charts: dict[str, Chart] = {
        "copying": head_map("Heads that copy what they attend to", batched, "copying", caption, diverging=True)
    }
    for name, title in (("qk", "what attends to what, W_Q W_K^T"), ("ov", "what is written, W_V W_O")):
        values = {label: m[f"{name}_eigenvalues"].ravel() for label, m in found.items()}
        charts[f"{name}_eigenvalues"] = Lines(
            f"Eigenvalues of {title}",
            "real part",
            "imaginary part",
            [Series(label, np.real(v), np.imag(v), style="points") for label, v in values.items()],
        )
        panels = [
            Panel(f"{label}, layer {int(m['layers'][i]) + 1}, head {h + 1}", product)
            for label, m in found.items()
            for i, heads in enumerate(m.get(name, ()))
            for h, product in enumerate(heads)
        ]
        if 0 < len(panels) <= 16:
            charts[name] = Heatmaps(f"Products: {title}", panels, "Rows and columns are channels of the stream.")
    return charts


def _attention(network: Any) -> dict[int, AttentionLayer]:
    """The layers that mix by attention, by number."""
    layers = network.layers() if hasattr(network, "layers") else []
    return {i: layer.mixer for i, layer in enumerate(layers) if isinstance(layer.mixer, AttentionLayer)}


def _factors(mixer: AttentionLayer) -> list[tuple[np.ndarray, np.ndarray]]:
    """QK and OV of every head as two factors, "heads d k" and "heads k d", in float64."""
    shared = mixer.w_q.shape[0] // mixer.w_k.shape[0]
    q, k, v = (np.asarray(w, np.float64) for w in (mixer.w_q, mixer.w_k, mixer.w_v))
    k, v = np.repeat(k, shared, axis=0), np.repeat(v, shared, axis=0)
    if mixer.w_o is None:  # every head writes into its own channels
        h, d, width = v.shape
        writes = np.eye(d).reshape(h, width, d)
    else:
        writes = np.asarray(mixer.w_o, np.float64)
    return [(q * mixer.scale, np.swapaxes(k, 1, 2)), (v, writes)]


def _size(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The Frobenius norm of left @ right, from small matrices."""
    return np.sqrt(np.einsum("hij,hji->h", np.swapaxes(left, 1, 2) @ left, right @ np.swapaxes(right, 1, 2)))


def _told(value: complex) -> str:
    return f"{value.real:.3g}" if abs(value.imag) < 1e-9 * abs(value) else f"{value.real:.3g} {value.imag:+.3g}i"
