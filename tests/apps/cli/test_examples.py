"""The examples of `--help`, and the commands of the README, stand as they are."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from meta_icl.apps import cli
from meta_icl.apps.cli import COMMANDS, train
from meta_icl.apps.cli.options import parse

ROOT = Path(__file__).parents[3]
MINE = """
import equinox as eqx
import jax
from meta_icl.prompt import Prompt, Task
from meta_icl.tasks.laws import number


class MyTask(Task):
    noise: jax.Array = eqx.field(default=0.0, converter=number)

    def sample(self, *, key):
        x = jax.random.normal(key, (4, 2))
        return Prompt(x, x.sum(axis=1, keepdims=True))


class MyModel(eqx.Module):
    weights: jax.Array

    def __init__(self, *, key):
        self.weights = jax.random.normal(key, (2, 1))

    def __call__(self, prompt):
        return prompt.query.x @ self.weights
"""


def commands_of_readme() -> list[str]:
    """Every command of `meta-icl` in the README's shell blocks, continuation lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("meta-icl ", 1)[1] for line in lines if re.match(r"\S*meta-icl ", line)]


EXAMPLES = [
    f"{command} {example}" for command in COMMANDS
    for example in importlib.import_module(f"meta_icl.apps.cli.{command}").EXAMPLES
] + list(cli.EXAMPLES) + commands_of_readme()  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("META_ICL_RUNS", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_understood(text, folder):
    """By the options of their command; of `train` everything but the training is done."""
    command, *arguments = shlex.split(text, comments=True)
    module = importlib.import_module(f"meta_icl.apps.cli.{command}")
    options = parse(module.Options, arguments, command=command, examples=())
    if command == "train" and options.resume is None:
        assert train.describe(options)["command"] == "train"


SMALL = ("--steps", "2", "--batch", "4", "--workers", "0")
CHEAP = [text for text in EXAMPLES if re.match(r"(papers|runs|doctor|report (first|last))\b", text)]


def test_cheap_examples_run_in_a_folder_with_the_runs_of_the_readme(folder, capsys):
    linear = ("train", "linear_regression", "von_oswald", "--task", "d=5", "n_context=3", "--model", "d_model=6")
    for name in ("rossi2024-of-old", "blocks", "first"):
        assert cli.main([*linear, *SMALL, "--name", name]) == 0
    capsys.readouterr()
    assert len(CHEAP) >= 10
    for text in CHEAP:
        status = cli.main(shlex.split(text, comments=True))
        captured = capsys.readouterr()
        assert status == 0 and captured.out, (text, captured.err)
