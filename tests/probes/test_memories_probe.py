"""`meta-icl train` of a network of mixers named in text, and `meta-icl probe` of its memories."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest

from meta_icl.algorithms import Delta, RecursiveRidge
from meta_icl.analysis.memory import memory_layers
from meta_icl.apps import cli
from meta_icl.apps.cli.catalogue import network_of, part_classes
from meta_icl.errors import BadInput
from meta_icl.models import Architecture, Block, Dense, Interleaved, Learner, mixers, published
from meta_icl.models.mixers import DESCRIPTIONS, MixerDescription
from meta_icl.plotting import draw
from meta_icl.probes import learner_subject, memories
from meta_icl.prompt import answer_positions
from meta_icl.tasks import LinearRegression, Normal

TRAIN = ("linear_regression", "memories", "--task", "d=2", "n_context=5", "--layout", "interleaved")
SMALL = ("--objective", "every_position_mse", "--steps", "2", "--batch", "4", "--workers", "0")


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a command."""
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.slow
def test_a_run_of_memories_is_probed(capsys, tmp_path):
    model = ("--model", "d_model=4", "d_in=2", "n_layers=1", "mixers=persistent:n_tokens=2,mixer=deltanet:chunk_size=1")
    status, _, err = call(capsys, "train", *TRAIN, *model, *SMALL, "--root", str(tmp_path))
    assert status == 0, err
    status, out, err = call(
        capsys,
        "probe",
        "train-LinearRegression-memories",
        "--probe",
        "memories",
        "--prompts",
        "3",
        "--root",
        str(tmp_path),
        "--json",
    )
    assert status == 0, err
    told = json.loads(out)["probes"]
    assert set(told) == {"memories"} and set(told["memories"]) == {"seed 0", "untrained"}
    for (row,) in told["memories"].values():
        assert (row["layer"], row["memory"]) == (1, "DeltaNet")
        assert row["cosine, delta rule"] == pytest.approx(1, abs=1e-3) and row["cosine, Hebb"] < 0.999
        assert row["surprise, first quarter"] > 0 and row["read back"] < 1


def test_attention_has_no_memory_to_probe():
    """A memory inside any block counts, whatever the network; layers are counted through all rounds."""
    delta = mixers.DeltaNet(n_heads=1, conv=0)
    in_turn = (Block(mixers.Attention()), Block(delta, Dense(3)), Block(None, Dense(3)))
    for described, layers in (
        (published.memories(4, (mixers.Attention(), delta), d_in=2), [1]),
        (Architecture(4, 5, in_turn), [1, 4]),
        (Architecture(4, 3, Block(mixers.Persistent(delta)), looped=True), [0, 1, 2]),
    ):
        assert memory_layers(eqx.filter_jit(described)(key=jax.random.key(0))) == layers
    learner = Learner(published.memories(4, (mixers.Attention(),), d_in=2), Interleaved())(key=jax.random.key(0))
    prompts = LinearRegression(d=2, n_context=5).sample_batch(2, key=jax.random.key(1))
    with pytest.raises(BadInput, match="network must have memories of keys and values"):
        memories.measure(learner_subject(learner, prompts))


def test_mixers_are_named_in_text():
    """All of them, with fields of their own, in lists; the config of a run gives the same description again."""
    assert set(DESCRIPTIONS) <= set(part_classes("memories"))
    classes = [name for name in mixers.__all__ if isinstance(getattr(mixers, name), type)]
    described = {name for name in classes if issubclass(getattr(mixers, name), MixerDescription)}
    assert described - {"MixerDescription", "HeadDescription"} == set(DESCRIPTIONS)
    fields = {
        "d_model": 4,
        "d_in": 2,
        "mixers": [
            {"name": "DeltaNet", "fields": {"n_heads": 1, "conv": 0}},
            {
                "name": "TitansBlock",
                "fields": {"variant": "gate", "memory": {"name": "Titans", "fields": {"depth": 2}}},
            },
        ],
    }
    described = network_of({"name": "memories", "fields": fields})
    delta, gate = mixers.DeltaNet(n_heads=1, conv=0), mixers.TitansBlock("gate", mixers.Titans(depth=2))
    assert tuple(block.mixer for block in described.block) == (delta, gate)


def test_learners_are_recognised():
    """Answers of the delta rule at a rate, and of ridge at a penalty, in any scale, and the charts of a measure."""
    prompts = LinearRegression(d=3, n_context=8, x_law=Normal()).sample_batch(64, key=jax.random.key(0))
    learners = {"delta": (Delta(rate=0.5), "rate", 0.5), "ridge": (RecursiveRidge(1.0), "penalty", 1.0)}
    for name, (learner, setting, value) in learners.items():
        answers = 0.3 * answer_positions(learner, prompts)[:, None, :, 0]
        found = memories.compared(answers, prompts)
        assert float(found[f"answer/{name}"][0]) == pytest.approx(1, abs=1e-5)
        assert float(found[setting][0]) == pytest.approx(value)
        others = {"step", "delta", "ridge"} - {name}
        assert all(float(found[f"answer/{other}"][0]) < 0.995 for other in others)
        last = memories.compared(answers[..., -1:], prompts)  # of a model that answers the query alone
        assert float(last[f"answer/{name}"][0]) == pytest.approx(1, abs=1e-5)
    by_token = {name: np.full((1, 9), 0.5) for name in ("delta_rule", "hebb", "surprise", "read_back")}
    measured = by_token | {k: np.asarray(v) for k, v in found.items()} | {"layers": np.array([0]), "kinds": ["Mesa"]}
    assert memories.rows(measured)[0]["memory"] == "Mesa"
    for chart in memories.figures({"seed 0": measured, "untrained": measured}).values():
        draw(chart)
