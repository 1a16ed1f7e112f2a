"""Write the README's table of papers: what was learned, from the papers' folders, and verdicts, from `results/`.

`python docs/_ext/readme.py` rewrites it (`make readme`); a test holds that it is up to date.
"""

from kept import ROOT, Paper, papers

BEGIN, END = "<!-- papers: written by `make readme` -->", "<!-- end of papers -->"


def table() -> str:
    """A row per paper; claims in brackets are those that a clause rests on."""
    lines = ["| paper | what was learned | verdicts of the last kept run |", "|---|---|---|"]
    for paper in papers():
        lines.append(f"| **{paper.short}**: {_cell(paper.title)} | {_cell(paper.finding)} | {_verdicts(paper)} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """A document with the table between its two marks brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the document must have the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _verdicts(paper: Paper) -> str:
    runs = [(f"`{run.preset}`: " if run.preset != "small" else "") + run.told for run in paper.results]
    return "; ".join(runs) or "no run is kept"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(written(file.read_text("utf-8")), "utf-8")
