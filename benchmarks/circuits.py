"""The default of Minegishi et al.: two layers of attention without norms, two ReLU layers, items and labels in turn."""

from functools import partial

from harness import Run, Workload
from ways import ours, torch_loop

N, CLASSES, LABELS, TASKS, D, WIDTH, PLACES, BATCH, EPS = 4, 64, 32, 3, 63, 128, 65, 128, 0.1


def project() -> Run:
    import jax

    from meta_icl.models import ItemIndex, Learner, minegishi
    from meta_icl.tasks import meta_classification
    from meta_icl.training import Optimiser, cross_entropy

    world = meta_classification(key=jax.random.key(1))
    learner = Learner(minegishi(LABELS), ItemIndex(False, PLACES))
    return ours(world, learner, batch=BATCH, optimiser=Optimiser("sgd", learning_rate=0.01), objective=cross_entropy)


def plain_torch(compiled: bool = False, numpy: bool = False) -> Run:
    """Every token goes through both layers; prompts are drawn by PyTorch, or one after the other by NumPy."""
    import numpy as np
    import torch
    from torch import nn

    means = torch.randn(CLASSES, D) / D**0.5
    labels = (torch.randint(LABELS, (CLASSES,))[None] + torch.arange(TASKS)[:, None]) % LABELS
    generator, host_means, host_labels = np.random.default_rng(0), means.numpy(), labels.numpy()

    def drawn():
        order = torch.rand(BATCH, CLASSES).argsort(1)[:, :N]
        classes = torch.cat([order, torch.randint(CLASSES, (BATCH, 1))], 1)
        x = (means[classes] + EPS * torch.randn(BATCH, N + 1, D) / D**0.5) / (1 + EPS**2) ** 0.5
        return x, labels[torch.randint(TASKS, (BATCH, 1)), classes]

    def drawn_by_numpy():
        xs, ys = [], []
        for _ in range(BATCH):
            classes = np.append(generator.choice(CLASSES, N, replace=False), generator.integers(CLASSES))
            noise = EPS * generator.standard_normal((N + 1, D)) / D**0.5
            xs.append((host_means[classes] + noise) / (1 + EPS**2) ** 0.5)
            ys.append(host_labels[generator.integers(TASKS), classes])
        return torch.tensor(np.stack(xs), dtype=torch.float32), torch.tensor(np.stack(ys))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
            for map in (self.q, self.k, self.v):
                nn.init.normal_(map.weight, std=WIDTH**-0.5)

        def forward(self, h):
            scores = self.q(h) @ self.k(h).mT
            hidden = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
            return h + scores.masked_fill(hidden, -torch.inf).softmax(-1) @ self.v(h)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.labels = nn.Embedding(LABELS, WIDTH)
            nn.init.normal_(self.labels.weight, std=WIDTH**-0.5)
            self.layers = nn.Sequential(Layer(), Layer())
            dense = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, LABELS)]
            self.head = nn.Sequential(*dense)

        def forward(self, x, y):
            places = torch.eye(N + 1, WIDTH - D).expand(len(x), -1, -1)
            items = torch.cat([x, places], -1)
            h = torch.stack([items[:, :-1], self.labels(y)], 2).flatten(1, 2)
            return self.head(self.layers(torch.cat([h, items[:, -1:]], 1))[:, -1])

    draw = drawn_by_numpy if numpy else drawn

    def loss_of(model):
        x, y = draw()
        return nn.functional.cross_entropy(model(x, y[:, :-1]), y[:, -1])

    model = Network()
    return torch_loop(model, loss_of, torch.optim.SGD(model.parameters(), 0.01), compiled=compiled)


WORKLOADS = {
    "minegishi": Workload(
        "Minegishi et al., default, batch 128, SGD",
        {
            "meta_icl": project,
            "torch": plain_torch,
            "torch compiled": partial(plain_torch, compiled=True),
            "torch, numpy prompts": partial(plain_torch, numpy=True),
        },
        match=100,
    )
}
