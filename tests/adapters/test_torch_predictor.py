"""A PyTorch model is a predictor like any other: its answers are its own, and nothing about it changes."""

import jax
import numpy as np
import pytest

from meta_icl.errors import BadInput
from meta_icl.evaluation import compare, leaks, loss_by_context
from meta_icl.models import Concatenated, Interleaved
from meta_icl.prompt import answer_batch, answer_positions
from meta_icl.tasks import LinearRegression, RandomPoints

torch = pytest.importorskip("torch")
from meta_icl.torch import TorchPredictor  # noqa: E402  (after the test that torch is there)

TASK = LinearRegression(d=2, n_context=4)
PROMPTS = TASK.sample_batch(5, key=jax.random.key(0))


class Step(torch.nn.Module):
    """One gradient step on the context, with dropout that must be off."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=dtype))
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, x, y):
        assert not torch.is_grad_enabled() and x.dtype == self.rate.dtype
        w = self.dropout(torch.einsum("bno,bnd->bod", y[:, :-1], x[:, :-1])) * self.rate / (x.shape[1] - 1)
        return torch.einsum("bod,bd->bo", w, x[:, -1])


def expected(prompts, rate=0.5):
    x, y = np.asarray(prompts.x, float), np.asarray(prompts.y, float)
    return np.einsum("bno,bnd,bd->bo", y[:, :-1], x[:, :-1], x[:, -1]) * rate / (x.shape[1] - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_are_the_modules(dtype):
    module = Step(dtype)
    predictor = TorchPredictor(module)
    np.testing.assert_allclose(answer_batch(predictor, PROMPTS), expected(PROMPTS), rtol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[2], PROMPTS)
    np.testing.assert_allclose(predictor(one), expected(PROMPTS)[2], rtol=1e-5)
    assert module.training and module.dropout.training and module.rate.grad is None


def test_it_is_compared_in_one_call_per_block():
    calls = []
    module = Step()
    module.register_forward_hook(lambda *_: calls.append(1))
    table = compare({"torch": TorchPredictor(module), "zero": lambda p: 0 * p.query.x[0]}, TASK, key=1, n_prompts=500)
    losses = 0.5 * (expected(prompts := TASK.sample_batch(500, key=jax.random.key(1))) - np.asarray(prompts.y)[:, -1])
    assert table["torch"]["loss"].mean == pytest.approx(float(np.mean(2 * losses**2)), rel=1e-5)
    assert np.isnan(table["torch"]["sensitivity_cosine"].mean) and len(calls) <= 4
    assert leaks(TorchPredictor(module), jax.tree.map(lambda leaf: leaf[0], PROMPTS)) == (False, None)
    curves = loss_by_context([TorchPredictor(module)], TASK, [2, 4], key=1, n_prompts=20)
    assert len(curves["Step"]) == 2


class Rows(torch.nn.Module):
    """Maps every token by one matrix."""

    def __init__(self, width):
        super().__init__()
        self.map = torch.nn.Linear(width, width, bias=False)

    def forward(self, tokens):
        return self.map(tokens)


def test_layouts_are_those_of_the_networks_here():
    for layout, width in ((Concatenated(), 3), (Interleaved(), 2)):
        module = Rows(width)
        predictor = TorchPredictor(module, layout=layout)
        w = module.map.weight.detach().numpy()
        tokens = np.asarray(jax.vmap(layout.encode)(PROMPTS))
        read = jax.vmap(layout.read)(tokens @ w.T, PROMPTS)
        ask = answer_batch if layout.reads_last_token else answer_positions
        np.testing.assert_allclose(ask(predictor, PROMPTS), read, rtol=1e-4, atol=1e-5)


class Logits(torch.nn.Module):
    def forward(self, x, y):
        assert y.dtype == torch.int64
        return torch.nn.functional.one_hot(y[:, 0], 4).float()


def test_labels_come_as_integers():
    task = RandomPoints(d=2, n_context=3, n_labels=4)
    table = compare({"first": TorchPredictor(Logits()), "again": TorchPredictor(Logits())}, task, key=0, n_prompts=30)
    y = np.asarray(task.sample_batch(30, key=jax.random.key(0)).y)
    assert table["first"]["accuracy"].mean == pytest.approx((y[:, 0] == y[:, -1]).mean())


class Tuple(torch.nn.Module):
    def forward(self, x, y):
        return x, y


def test_what_does_not_fit_is_one_line():
    for make, named in (
        (lambda: TorchPredictor(lambda x: x), "module must be a torch.nn.Module"),
        (lambda: TorchPredictor(Step(), layout="concatenated"), "layout must be a layout"),
        (lambda: answer_batch(TorchPredictor(Tuple()), PROMPTS), "Tuple must return a tensor, got tuple"),
        (lambda: answer_batch(TorchPredictor(torch.nn.Bilinear(2, 1, 3)), PROMPTS), r"Bilinear .* shape \(5, 3\)"),
    ):
        with pytest.raises(BadInput, match=named) as raised:
            make()
        assert "\n" not in str(raised.value)
