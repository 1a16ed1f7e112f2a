"""A page per paper, from its folder and `results/`, and the page of what stands across all of them."""

import re
from collections import Counter, defaultdict
from pathlib import Path

from kept import VERDICTS, Paper, Result, title_of, told

from meta_icl.apps.report.facts import devices
from meta_icl.runs import Claim

MARKS = {"holds": "✓", "fails": "✗", "not decided": "?", "not converged": "~"}
HEADINGS = re.compile(r"^([A-Z][A-Za-z `]*?)([.:]) ")  # the opening of a paragraph, such as "Setting. "

# Which question of the field a paper is about, for the page across papers; a test holds that none is left out.
THEMES = {
    "Is the forward pass gradient descent?": ("vonoswald2022", "rossi2024", "ahn2023", "he2025"),
    "How is it learned?": ("zhang2025", "raventos2023", "garg2022", "han2024", "kirsch2022"),
    "Which circuits do it, and which data call for them?": (
        *("olsson2022", "singh2024", "reddy2023", "chan2022", "minegishi2025"),
    ),
    "Is a prompt a change of weights?": ("dherin2025", "goldwaser2025", "innocenti2025", "mazzawi2025"),
    "What does a memory write?": ("schlag2021", "behrouz2025"),
    "What do language models make of examples?": ("brown2020", "hendel2023"),
}


def page(paper: Paper, root: str) -> str:
    """The page of a paper in Markdown; `root` is the way from the page to the folder that holds `results/`."""
    lines = [f"# {paper.short}: {paper.title}", "", f"{paper.citation}.", ""]
    lines += [f"**What was learned here:** {_linked(paper)}.", ""]
    lines += ["```sh", f"meta-icl reproduce {paper.short}", "```", ""]
    lines += ["## What it claims, and how it is asked", "", *_docstring(paper), ""]
    for result in paper.results:
        lines += _result(result, paper, root)
    lines += ["## Presets", "", "| preset | time | deviations from the published setting, and why |", "|---|---|---|"]
    for name, time in paper.times.items():
        reason, code = paper.presets.get(name, ("", ""))
        lines.append(f"| `{name}` | {time} | {_cell(_prose(reason))} {_code(code)} |")
    return "\n".join([*lines, ""])


def standing(papers: list[Paper]) -> str:
    """Every claim of every paper with its verdict, by the question that it is about."""
    by_name = {paper.short: paper for paper in papers}
    counts = {paper.name: Counter(claim.verdict for claim in paper.decided.values()) for paper in papers}
    total = sum(counts.values(), start=Counter())
    lines = [
        "# Which claims about in-context learning stand",
        "",
        "Made from [`results/`](papers/index.md): the last kept run of every paper, at sizes that two CPU cores can "
        "train in minutes unless its page says otherwise. A claim that fails stays here. What fails at this size may "
        "hold at the published one, and the page of each paper says what was measured and what is known of the reason.",
        "",
        f"Of {sum(total.values())} claims, {told(total)}. Names in brackets are the claims that a sentence rests on: "
        "alone they hold, after *not* they fail, after *open* they are not decided.",
    ]
    for question, names in THEMES.items():
        lines += ["", f"## {question}", ""]
        for paper in (by_name[name] for name in names):
            lines += [f"**[{paper.short}](papers/{paper.name}.md)**: {_linked(paper)}.", ""]
        for verdict in VERDICTS:
            claims = [claim for name in names for claim in by_name[name].decided.values()]
            found = [claim for claim in claims if claim.verdict == verdict]
            if found:
                rows = [f"| {_link(claim)} | {_cell(_prose(claim.statement))} |" for claim in found]
                table = ["| claim | statement |", "|---|---|", *rows]
                title = f"{MARKS[verdict]} {verdict} ({len(found)})"
                lines += _folded(title, table)
    lines += [
        "",
        "## Paper by paper",
        "",
        "| paper | " + " | ".join(VERDICTS) + " |",
        "|---|" + "---:|" * len(VERDICTS),
    ]
    for paper in papers:
        numbers = " | ".join(str(counts[paper.name][verdict] or "") for verdict in VERDICTS)
        lines.append(f"| [{paper.short}](papers/{paper.name}.md) | {numbers} |")
    return "\n".join([*lines, ""])


def _result(result: Result, paper: Paper, root: str) -> list[str]:
    code, seconds = result.provenance["code"], result.provenance["wall_seconds"]
    versions = result.provenance["versions"]
    told_versions = ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "equinox") if name in versions)
    lines = [
        f"## Verdicts of the preset `{result.preset}`",
        "",
        f"{result.told}. Run at commit `{str(code.get('commit'))[:10]}` in {seconds / 60:.0f} minutes "
        f"({told_versions}; {devices(result.provenance.get('devices', ['one device']))}).",
        "",
        "| claim | statement | source | verdict |",
        "|---|---|---|---|",
    ]
    for claim in result.claims:
        short = claim.id.split("/")[1]
        first = next(one for one in paper.results for other in one.claims if other.id == claim.id)
        named = f"[{short}]{{#{_anchor(claim)}}}" if result is first else short
        statement, source = _cell(_prose(claim.statement)), _cell(_prose(claim.source))
        verdict = f"{MARKS[claim.verdict]} {claim.verdict}".replace(" ", "\N{NO-BREAK SPACE}")
        lines.append(f"| {named} | {statement} | {source} | {verdict} |")
    lines += ["", *_reasons(result.claims), *_measured(result.claims)]
    if result.figures:
        lines += [f"### Figures of `{result.preset}`", ""]
        for path in result.figures:
            where = f"{root}/{path.relative_to(path.parents[3]).as_posix()}"
            lines += [f"```{{figure}} {where}", f":alt: {title_of(path)}", ":class: drawing", "```", ""]
    return lines


def _reasons(claims: list[Claim]) -> list[str]:
    """What failed with its numbers and what is known of the reason; what was not decided, and what it would take."""
    lines: list[str] = []
    failed = [claim for claim in claims if claim.verdict == "fails"]
    if failed:
        lines += ["### What failed, and what is known of the reason", ""]
    for claim in failed:
        lines.append(f"**{claim.id.split('/')[1]}. {_prose(claim.statement)}.**")
        missed = [check for check in claim.checks if check.verdict == "fails"]
        lines += ["", *(f"- {_prose(check.quantity)}: expected {_prose(check.expected)}, "
                        f"measured {_prose(check.measured_text)}" for check in missed)]  # fmt: skip
        lines += ["", _sentence(claim.note or "No reason is recorded"), ""]
    open_claims = [claim for claim in claims if claim.verdict in ("not decided", "not converged")]
    if open_claims:
        lines += ["### Not decided, and what it would take", "", "| claims | reason |", "|---|---|"]
        by_reason = defaultdict(list)
        for claim in open_claims:
            reason = claim.undecided or "; ".join(guard.text for guard in claim.guards if not all(guard.seeds))
            by_reason[reason].append(claim.id.split("/")[1])
        lines += [f"| {', '.join(names)} | {_cell(_prose(reason))} |" for reason, names in by_reason.items()]
        lines.append("")
    revised = [claim for claim in claims if claim.revised]
    if revised:
        lines += ["### Revised expectations", ""]
        lines += [f"- {claim.id.split('/')[1]}: {_prose(claim.revised or '')}" for claim in revised]
        lines.append("")
    return lines


def _measured(claims: list[Claim]) -> list[str]:
    """Every check with expectation, median and spread over seeds, folded away."""
    rows = [(claim, check) for claim in claims for check in claim.checks]
    if not rows:
        return []
    lines = ["| claim | quantity | expected | measured | |", "|---|---|---|---|---|"]
    for claim, check in rows:
        cells = (claim.id.split("/")[1], _prose(check.quantity), check.expected, check.measured_text)
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} | {MARKS[check.verdict]} |")
    return _folded("All checks: expected and measured (median and spread over seeds)", lines)


def _folded(title: str, lines: list[str]) -> list[str]:
    """Something that opens when its title is pressed."""
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _docstring(paper: Paper) -> list[str]:
    """The paragraphs of the docstring; their openings ("Setting.") in bold."""
    lines: list[str] = []
    for paragraph in paper.paragraphs:
        text = _prose(" ".join(paragraph.split()))
        if not text.startswith("Command:"):
            lines += [HEADINGS.sub(r"**\1\2** ", text), ""]
    return lines


def _linked(paper: Paper) -> str:
    """The finding, with links from the claims that it names to their rows."""

    def link(found: re.Match[str]) -> str:
        return f"[{found[0]}](#{paper.short}-{found[0].lower()})"

    known = {name.split("/")[1] for name in paper.stated}
    if not known:
        return _prose(paper.finding)
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    return re.sub(rf"\b(?:{names})(?![\w.-])", link, _prose(paper.finding))


def _link(claim: Claim) -> str:
    return f"[{claim.id}](#{_anchor(claim)})"


def _anchor(claim: Claim) -> str:
    return claim.id.replace("/", "-").lower()


def _prose(text: str) -> str:
    """Plain text as Markdown: what would be markup there is escaped outside of code."""
    parts = text.split("`")
    escaped = [re.sub(r"([*_<>\[\]$~|\\])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts)]
    return "`".join(escaped)


def _sentence(text: str) -> str:
    """Prose with a capital and a full stop."""
    return _prose(text[0].upper() + text[1:].rstrip(".") + ".")


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", "\\|", " ".join(text.split()))


def _code(code: str) -> str:
    """A preset's deviations as code, cut where they are long."""
    short = code if len(code) <= 300 else code[:297] + "…"
    return f"<br>`{_cell(short)}`" if code else ""


def write(papers: list[Paper], folder: Path, root: str) -> None:
    """Write all these pages into `folder`; files whose text stays are left alone, so that nothing is built again."""
    index = [
        "# Papers",
        "",
        "Every paper is a folder of the code and a page here, made from it and its kept results.",
        "",
    ]
    index += ["| paper | what was learned |", "|---|---|"]
    for paper in papers:
        index.append(f"| [{paper.short}]({paper.name}.md): {_cell(_prose(paper.title))} | {_cell(_linked(paper))} |")
    names = "\n".join(paper.name for paper in papers)
    index += ["", "```{toctree}", ":hidden:", names, "```", ""]
    pages = {f"papers/{paper.name}.md": page(paper, root) for paper in papers}
    put(folder, pages | {"papers/index.md": "\n".join(index), "standing.md": standing(papers)})


def put(folder: Path, texts: dict[str, str]) -> None:
    """Write those texts that changed."""
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
