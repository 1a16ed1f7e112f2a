"""One look for every figure: colours that colour-blind readers can tell apart, on light and on dark paper.

The hues are those of Okabe and Ito (2008), shifted in lightness so that lines keep a contrast of 3:1 or more with the
paper of their scheme.
"""

import html
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Scheme = Literal["light", "dark"]

COLOURS: dict[Scheme, dict[str, str]] = {
    "light": {
        "paper": "#ffffff",
        "page": "#f6f7f9",
        "raised": "#ffffff",
        "ink": "#1b2330",
        "muted": "#5a6577",
        "rule": "#dfe3ea",
        "published": "#7b8494",
        "accent": "#0b63b0",
        "holds": "#086745",
        "fails": "#a92f18",
        "open": "#785400",
        "c0": "#0b6fc2",
        "c1": "#d1530a",
        "c2": "#0a8a63",
        "c3": "#a8489a",
        "c4": "#2f94d6",
        "c5": "#b07800",
        "c6": "#5b55c9",
        "c7": "#4d5560",
    },
    "dark": {
        "paper": "#161b24",
        "page": "#0f131a",
        "raised": "#161b24",
        "ink": "#e7ebf2",
        "muted": "#9aa5b8",
        "rule": "#2b3341",
        "published": "#8f9aad",
        "accent": "#6cb6ff",
        "holds": "#4fcf9e",
        "fails": "#ff8468",
        "open": "#e9b949",
        "c0": "#5aabf5",
        "c1": "#ff8a4a",
        "c2": "#3cc794",
        "c3": "#e08fd3",
        "c4": "#8fd0ff",
        "c5": "#f0b93a",
        "c6": "#a9a4ff",
        "c7": "#c3cbd8",
    },
}
SERIES = tuple(f"c{i}" for i in range(8))

# Blue below zero, the paper's grey at zero, orange above: one scale for both schemes, since cells carry their own ink.
DIVERGING = ((0.0, "#0a4f8f"), (0.25, "#6aa9dc"), (0.5, "#f2f3f5"), (0.75, "#f0a06a"), (1.0, "#a83c05"))
SEQUENTIAL = ((0.0, "#f2f5f9"), (0.25, "#b5d3ec"), (0.5, "#67a8d8"), (0.75, "#2272b4"), (1.0, "#0a3f75"))

_PART = r"(?:\{([^{}]+)\}|([A-Za-z0-9]+))"
_SCRIPT = re.compile(rf"(?<![A-Za-z0-9])([A-Za-z\u0391-\u03c9]|10)(?:_{_PART})?(?:\^{_PART})?(?![A-Za-z0-9_^])")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
SPANS = ("c4", "c5", "c3", "c2", "c6", "c1")  # of named intervals of x, pale behind the curves


class Look(NamedTuple):
    """The colour (a name in `COLOURS`) and the marker of a series."""

    colour: str
    marker: str


def looks(published: Sequence[bool]) -> list[Look]:
    """A look for every series of a chart, in order, given which of them are published.

    Ours take the colours and the markers in turn, so that nothing rests on colour alone; published ones are grey, told
    apart by their markers. Where there are several published curves and each stands right after one of ours, they are
    pairs, and the published curve is drawn (open markers, thin line) in the look of its partner.
    """
    places = [i for i, theirs in enumerate(published) if theirs]
    paired = len(places) > 1 and all(i > 0 and not published[i - 1] for i in places)
    out: list[Look] = []
    ours = greys = 0
    for theirs in published:
        if not theirs:
            out.append(Look(SERIES[ours % len(SERIES)], MARKERS[ours % len(MARKERS)]))
            ours += 1
        elif paired:
            out.append(Look(out[-1].colour, out[-1].marker))
        else:
            out.append(Look("published", MARKERS[greys % len(MARKERS)]))
            greys += 1
    return out


def marked_up(text: str) -> str:
    """Text as HTML: escaped, with `W_Q` and `K^T` as sub- and superscript."""
    return _SCRIPT.sub(lambda m: _scripts(m, "<sub>{}</sub>", "<sup>{}</sup>"), html.escape(text, quote=False))


def mathtext(text: str) -> str:
    """Text for matplotlib: dollars taken literally, `W_Q` and `K^T` set as sub- and superscript."""
    literal = text.replace("$", r"\$")
    return _SCRIPT.sub(lambda m: _scripts(m, r"$_{{\mathrm{{{}}}}}$", r"$^{{\mathrm{{{}}}}}$"), literal)


def _scripts(match: re.Match[str], below: str, above: str) -> str:
    sub, sup = match[2] or match[3], match[4] or match[5]
    return match[1] + (below.format(sub) if sub else "") + (above.format(sup) if sup else "")
