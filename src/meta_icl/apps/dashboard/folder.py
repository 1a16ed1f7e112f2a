"""The folder of the runs as the dashboard sees it: what is listed there, and nothing outside of it."""

from pathlib import Path

from meta_icl.errors import BadInput
from meta_icl.runs import Run, RunInfo, list_runs
from meta_icl.runs.query import nested


class RunsFolder:
    """The runs of one folder by name; a run that is a link to somewhere else is none of them."""

    def __init__(self, root: Path):
        self.root = root

    def infos(self) -> list[RunInfo]:
        """All runs, the newest first."""
        return [info for info in list_runs(self.root) if self._inside(info.folder)]

    def run(self, name: str) -> Run:
        """The run of a name, for reading; `BadInput` for a name that is not listed, such as a path."""
        return Run.load(self._folder(name))

    def parts(self, name: str) -> dict[str, Path]:
        """The folders of a run and of its parts at any depth, by the names of the parts ("" is the run itself)."""
        folder = self._folder(name)
        return {"/".join(one.relative_to(folder).parts[1::2]): one for one in nested(folder)}

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        if Path(name).name != name or not self._inside(folder) or not (folder / "config.json").is_file():
            raise BadInput(f"{self.root} holds no run {name!r}")
        return folder

    def _inside(self, folder: Path) -> bool:
        return folder.resolve().parent == self.root.resolve()
