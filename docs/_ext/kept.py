"""What the folders of the papers and `results/` say of every paper, read without importing anything that trains."""

import ast
import re
import tokenize
from collections import Counter, defaultdict
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from meta_icl.apps.cli import listing
from meta_icl.runs import Claim, read_json
from meta_icl.runs.judged import read_claims

ROOT = Path(__file__).parents[2]
PAPERS, RESULTS = ROOT / "src" / "meta_icl" / "papers", ROOT / "results"
VERDICTS = ("holds", "fails", "not decided", "not converged")


@dataclass(frozen=True)
class Result:
    """The last kept run of a preset."""

    preset: str
    folder: Path
    claims: list[Claim]
    provenance: dict[str, Any]

    @property
    def counts(self) -> Counter[str]:
        """Verdict -> number of claims."""
        return Counter(claim.verdict for claim in self.claims)

    @property
    def told(self) -> str:
        """Such as "7 hold, 2 fail, 3 not decided"."""
        return told(self.counts)

    @property
    def figures(self) -> list[Path]:
        """The drawings that were kept."""
        return sorted((self.folder / "figures").glob("*.svg"))


@dataclass(frozen=True)
class Paper:
    """A paper as its folder tells: names, title, citation, the paragraphs of its docstring, times, what was learned."""

    name: str
    title: str
    citation: str
    paragraphs: list[str]
    times: dict[str, str]
    finding: str
    presets: dict[str, tuple[str, str]]  # preset -> the reason of its deviations, and the deviations as code
    results: list[Result]

    @property
    def short(self) -> str:
        """The name by which the command line knows it, such as `rossi2024`."""
        return self.name.split("_")[0]

    @property
    def stated(self) -> dict[str, str]:
        """The verdict that `finding` states of each claim that it names: `(A-1)` holds, `(not A-2, A-3)` fail,
        `(open: A-4)` is not decided, or its training has not converged."""
        found = {}
        for start, names in re.findall(r"\((not |open: |)([^()]*)\)", self.finding):
            verdict = {"not ": "fails", "open: ": "not decided"}.get(start, "holds")
            found |= {f"{self.short}/{name.strip()}": verdict for name in names.split(",")}
        return found

    @property
    def decided(self) -> dict[str, Claim]:
        """Every claim as `small` judged it, or the first preset that decides what `small` leaves open."""
        chosen: dict[str, Claim] = {}
        for claim in (claim for result in self.results for claim in result.claims):
            known = chosen.get(claim.id)
            if known is None or (known.verdict not in ("holds", "fails") and claim.verdict in ("holds", "fails")):
                chosen[claim.id] = claim
        return chosen


def told(counts: Counter[str]) -> str:
    """Numbers of verdicts in words; the two that need a training are left out where there are none."""
    parts = [f"{counts['holds']} {'holds' if counts['holds'] == 1 else 'hold'}"]
    parts.append(f"{counts['fails']} {'fails' if counts['fails'] == 1 else 'fail'}")
    return ", ".join([*parts, *(f"{counts[verdict]} {verdict}" for verdict in VERDICTS[2:] if counts[verdict])])


def papers() -> list[Paper]:
    """All papers, by name."""
    return [read(path.parent) for path in sorted(PAPERS.glob("[!_]*/__init__.py"))]


def read(folder: Path) -> Paper:
    """A paper from its folder, with what `results/` keeps of it (`small` first)."""
    source = (folder / "__init__.py").read_text("utf-8")
    tree = ast.parse(source)
    head, *paragraphs = re.split(r"\n\s*\n", ast.get_docstring(tree) or folder.name)
    head = " ".join(head.split())
    cited = re.fullmatch(r"(.*?) \(([^()]*)\)(.*?)\.?", head)
    title, citation = (cited[1] + cited[3], cited[2]) if cited else (head, "")
    values = {node.targets[0].id: node.value for node in tree.body
              if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    runs = [path.parent for path in sorted(RESULTS.glob(f"{folder.name}*/claims.json"))]
    runs = [run for run in runs if run.name == folder.name or run.name.startswith(f"{folder.name}-")]
    return Paper(
        folder.name,
        title,
        citation,
        paragraphs,
        ast.literal_eval(values["TIMES"]),
        ast.literal_eval(values["FINDING"]) if "FINDING" in values else "no run of it is kept yet",
        _presets(source, values["PRESETS"]),
        [_result(run, folder.name) for run in runs],
    )


def title_of(drawing: Path) -> str:
    """What an SVG file has in its largest letters, which is the title of the figure; its name where it has no text."""
    texts = defaultdict(list)
    drawn = ElementTree.parse(drawing)  # noqa: S314 (a file of this project)
    for text in drawn.iter("{http://www.w3.org/2000/svg}text"):
        styles = " ".join(part.get("style", "") for part in text.iter())
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", styles)]
        texts[max(sizes, default=0.0)].append("".join(text.itertext()))
    found = " ".join(" ".join(texts[max(texts)]).split()) if texts else ""
    return found or drawing.stem.replace("_", " ")


def _result(folder: Path, name: str) -> Result:
    preset = folder.name.removeprefix(name).removeprefix("-") or "small"
    claims = listing.explained(read_claims(folder), listing.reasons(PAPERS / name))
    return Result(preset, folder, claims, read_json(folder / "provenance.json"))


def _presets(source: str, node: ast.expr) -> dict[str, tuple[str, str]]:
    """Every preset with the comment above it and its code."""
    if not isinstance(node, ast.Dict):
        raise TypeError(f"PRESETS must be written as a dictionary, line {node.lineno}")
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:  # `**another`
            continue
        line, reason = key.lineno - 1, []
        while line in comments:
            reason.insert(0, comments[line])
            line -= 1
        found[ast.literal_eval(key)] = (" ".join(reason), ast.unparse(value))
    return found
