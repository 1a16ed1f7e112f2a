"""Every task that the command line lists can be trained: from texts and files alone, with a model that fits."""

import json

import numpy as np
import pytest

from meta_icl.apps.cli import arrays, catalogue, train
from meta_icl.apps.cli.options import parse
from meta_icl.errors import BadInput

POOL = "task=linear_regression:d=2,n_context=3 m=5 key=0"
DECODER = "n_tokens={} d_model=8 n_layers=1 n_heads=2 n_positions=64"
INDUCTION = "n_labels=10 d_in={} d_model=8 n_heads=1 n_layers=1"
TRANSFORMER, TOKENS, LABELS = "von_oswald", "gpt2", "singh"
CASES = {  # task -> its fields, a model with its fields
    "LinearRegression": ("d=2 n_context=3 pool=pool.npy", TRANSFORMER, "d_model=3"),
    "FunctionRegression": ("function=linear:d=2 n_context=3", TRANSFORMER, "d_model=3"),
    "SineRegression": ("", TRANSFORMER, "d_model=2"),
    "FixedWeightMixture": ("regression=linear_regression:d=2,n_context=3 fixed=[[1],[2]]", TRANSFORMER, "d_model=3"),
    "PromptPool": (POOL, TRANSFORMER, "d_model=3"),
    "RandomPoints": ("d=3 n_context=4 n_labels=10", LABELS, INDUCTION.format(3)),
    "BurstyGaussian": ("n_classes=16 d=3 n_labels=4 n_context=4 eps=0.2", LABELS, INDUCTION.format(3)),
    "MetaClassification": ("n_classes=16 d=3 n_labels=4 n_context=2", LABELS, INDUCTION.format(3)),
    "BurstyImages": ("images=set.npz", LABELS, INDUCTION.format(4)),
    "FewShot": ("images=set.npz", LABELS, INDUCTION.format(4)),
    "NoSupport": ("images=folder", LABELS, INDUCTION.format(4)),
    "TwoPairs": ("exemplars=digits label_pairs=[[0,1],[1,2]]", LABELS, INDUCTION.format(64)),
    "ProjectedImages": ("images=digits n_context=3 n_labels=10", LABELS, INDUCTION.format(64)),
    "Mqar": ("vocabulary=32 length=16 n_pairs=2", TOKENS, DECODER.format(32)),
    "Overwrite": ("vocabulary=32 n_keys=2 n_writes=2", TOKENS, DECODER.format(32)),
    "Needle": ("length=24", TOKENS, DECODER.format(64)),
    "RandomAutomata": ("length=20", TOKENS, DECODER.format(32)),
    "SelectiveCopying": ("length=16", TOKENS, DECODER.format(32)),
    "RepeatedTokens": ("n_tokens=16 period=5 repeats=2", TOKENS, DECODER.format(16)),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Arrays in every form that a task takes."""
    import matplotlib.image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("pool.npy", rng.normal(size=(4, 2, 1)))
    images, labels = rng.integers(0, 256, (30, 2, 2)).astype(np.uint8), np.arange(30) % 10
    np.savez("set.npz", images=images, labels=labels)
    for label in range(10):
        folder = tmp_path / "folder" / f"class_{label}"
        folder.mkdir(parents=True)
        for number, image in enumerate(images[labels == label]):
            matplotlib.image.imsave(folder / f"{number}.png", image, cmap="gray", vmin=0, vmax=255)
    return images, labels


def options(*texts: str) -> train.Options:
    return parse(train.Options, texts, command="train", examples=())


def test_every_task_is_among_the_cases():
    assert set(CASES) == set(catalogue.tasks_alone())


@pytest.mark.parametrize("name", CASES)
def test_every_task_can_be_trained(name, files):
    task, model, fields = CASES[name]
    if name == "NoSupport":  # pictures have four channels
        fields = INDUCTION.format(16)
    config = train.describe(options(name, model, "--task", *task.split(), "--model", *fields.split(), "--batch", "2"))
    assert json.loads(json.dumps(config)) == config  # it can stand in a run's folder
    assert config["objective"] == catalogue.OBJECTIVES[config["kind"]][0]


def test_images_of_a_file_are_rows_by_class(files):
    images, labels = files
    told = arrays.described("set.npz", "images")
    by_class = arrays.loaded(told)
    assert by_class.shape == (10, 3, 4)
    np.testing.assert_allclose(by_class[7], images[labels == 7].reshape(3, 4) / 255, rtol=1e-6)
    np.savez("set.npz", images=images[::-1], labels=labels)
    with pytest.raises(BadInput, match="as it was when the run was made"):
        arrays.loaded(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.npy", "there is no file"),
        ("bad.npy", "cannot be read as arrays of numpy"),
        ("two.npz", "needs the name of one of its arrays, as two.npz:NAME (it has a, b)"),
        ("pool.npy:a", "holds one array"),
    ],
)
def test_wrong_files_are_told(files, text, message):
    (files_here := __import__("pathlib").Path("bad.npy")).write_text("no array")
    np.savez("two.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(BadInput) as raised:
        arrays.described(text, "pool")
    assert message in str(raised.value) and "\n" not in str(raised.value) and files_here.exists()
