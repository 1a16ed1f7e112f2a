"""Few-shot classification under random projections: the tasks of general-purpose in-context learning (Kirsch 2022).

Task j of a pool is a pair (A_j, rho_j): a dense matrix with independent entries N(0, 1/d) that mixes the pixels of
every image, and a random assignment of classes to labels. Both follow from the pool's key with j folded in, so that
nothing is stored and 2^25 tasks cost as much as one. A prompt is one task and n images drawn from a data set:
x_i = A_j xbar_i, y_i = rho_j(ybar_i). Tasks that were never seen are those with other numbers.
"""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from meta_icl import draws
from meta_icl.errors import require
from meta_icl.prompt import Prompt, Task

if TYPE_CHECKING:
    from meta_icl.data import ImageSet

UNLIMITED = 2**30  # tasks: more than any training draws; those never seen have numbers from here on


class Projection(eqx.Module):
    """One task: the matrix A, and which class has which label (-1: the class does not occur)."""

    matrix: Float[Array, "d d"]
    label_of: Int[Array, " classes"]


class ProjectedImages(Task):
    """Prompts of n_context + 1 images under one random projection and label assignment each (Kirsch et al., 2022).

    `x` holds the images of a data set as rows, sorted by class, and `counts` how many there are of every class. A task
    uses min(n_labels, classes) of the classes, drawn at random, and gives them different ones of `n_labels` labels,
    drawn at random; images are independent and equally likely. A share `bias` of the tasks keep the assignment class i
    -> label i instead, their projections are random all the same. Tasks are numbered from `first_task` and there are
    `n_tasks` of them, at most `UNLIMITED`; both are numbers, so that one compiled program serves all sizes of a pool.
    """

    x: Float[Array, "*sweep m d"]
    counts: Int[Array, "*sweep classes"]
    key: Key[Array, "*sweep"]
    n_context: int = eqx.field(static=True)
    n_labels: int = eqx.field(static=True)
    n_tasks: Int[Array, "*sweep"] = eqx.field(converter=lambda n: _counted("n_tasks", n), default=UNLIMITED)
    first_task: Int[Array, "*sweep"] = eqx.field(converter=lambda n: _counted("first_task", n), default=0)
    bias: Float[Array, "*sweep"] = eqx.field(converter=lambda p: jnp.asarray(p, jnp.float32), default=0.0)

    def __check_init__(self):
        require(self.n_context >= 0, "n_context", self.n_context, "zero or more")
        require(self.n_labels >= 1, "n_labels", self.n_labels, "a positive integer")
        for field, low, high in (("n_tasks", 1, UNLIMITED), ("first_task", 0, UNLIMITED), ("bias", 0, 1)):
            value = getattr(self, field)
            if not isinstance(value, Tracer):
                inside = bool(jnp.all((value >= low) & (value <= high)))
                require(inside, field, value.tolist(), f"from {low} to {high}")

    @property
    def d(self) -> int:
        """Channels of an image."""
        return self.x.shape[-1]

    @property
    def n_used(self) -> int:
        """Classes per task."""
        return min(self.n_labels, self.counts.shape[-1])

    def unseen(self) -> "ProjectedImages":
        """Unlimited tasks without bias, none of which is in any pool that starts at task 0."""
        values = (jnp.asarray(UNLIMITED, jnp.int32), jnp.asarray(UNLIMITED, jnp.int32), jnp.zeros_like(self.bias))
        return eqx.tree_at(lambda t: (t.first_task, t.n_tasks, t.bias), self, values)

    def with_images(self, images: "ImageSet", part: str) -> "ProjectedImages":
        """The same tasks on the images of a part of another data set of the same size d."""
        require(images.d == self.d, f"size of {images.name}", images.d, f"{self.d} numbers, as the images before")
        return eqx.tree_at(lambda t: (t.x, t.counts), self, _by_class(images, part))

    def projection(self, index: Integer[Array, ""] | int) -> Projection:
        """Task number `index`."""
        key = jax.random.fold_in(self.key, index)
        matrix_key, class_key, label_key, coin_key = (jax.random.fold_in(key, i) for i in range(4))
        matrix = draws.normal(matrix_key, (self.d, self.d)) * self.d**-0.5
        biased = draws.uniform(coin_key) < self.bias
        n_classes = self.counts.shape[0]
        classes = jnp.where(biased, jnp.arange(n_classes), _order(class_key, n_classes))[: self.n_used]
        labels = jnp.where(biased, jnp.arange(self.n_labels), _order(label_key, self.n_labels))[: self.n_used]
        return Projection(matrix, jnp.full(n_classes, -1, jnp.int32).at[classes].set(labels.astype(jnp.int32)))

    def sample(self, *, key: Key[Array, ""]) -> Prompt:
        """Draw one prompt of one task of the pool."""
        task_key, row_key = jax.random.split(key)
        # Bounds below 2^31 are drawn as unsigned numbers, so that first_task + index reaches the last task.
        index = self.first_task.astype(jnp.uint32) + draws.randint(task_key, (), 0, self.n_tasks).astype(jnp.uint32)
        task = self.projection(index)
        rows, classes = self._draw_rows(task.label_of >= 0, row_key)
        return Prompt(self.x[rows] @ task.matrix.T, task.label_of[classes])

    def _draw_rows(
        self, used: Bool[Array, " classes"], key: Key[Array, ""]
    ) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        """n independent images of the used classes, all equally likely, with their classes."""
        within = jnp.cumsum(jnp.where(used, self.counts, 0))  # numbers of the images of the used classes alone
        drawn = draws.randint(key, (self.n_context + 1,), 0, within[-1])
        classes = jnp.searchsorted(within, drawn, side="right").astype(jnp.int32)
        skipped = jnp.cumsum(self.counts) - within  # images of unused classes up to and with a class
        return drawn + skipped[classes], classes


def projected_images(
    images: "ImageSet",
    part: str = "train",
    *,
    n_context: int,
    n_labels: int,
    key: Key[Array, ""],
    n_tasks: int = UNLIMITED,
    bias: ArrayLike = 0.0,
) -> ProjectedImages:
    """The task of a part of a data set; normalise the set first (`ImageSet.normalised`)."""
    return ProjectedImages(*_by_class(images, part), key, n_context, n_labels, n_tasks=n_tasks, bias=bias)


class RandomPoints(Task):
    """The Random set: `n_points` points uniform in a cube of mean 0 and deviation 1, each with a label of its own.

    They are shown over and over, every time in a new order, so a learner that remembers is right from row `n_points`
    on; labels are independent and uniform over `n_labels`. Kirsch et al. (2022) take 10 points and 10 labels.
    """

    d: int = eqx.field(static=True)
    n_context: int = eqx.field(static=True)
    n_labels: int = eqx.field(static=True)
    n_points: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        for field in ("d", "n_labels", "n_points"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "a positive integer")
        require(self.n_context >= 0, "n_context", self.n_context, "zero or more")

    def sample(self, *, key: Key[Array, ""]) -> Prompt:
        """Draw one prompt."""
        x_key, y_key, order_key = jax.random.split(key, 3)
        x = 12**0.5 * (draws.uniform(x_key, (self.n_points, self.d)) - 0.5)
        y = draws.randint(y_key, (self.n_points,), 0, self.n_labels)
        n = self.n_context + 1
        passes = -(-n // self.n_points)
        order = jnp.argsort(draws.uniform(order_key, (passes, self.n_points)), axis=1).reshape(-1)[:n]
        return Prompt(x[order], y[order])


def _counted(field: str, value: ArrayLike) -> Int[Array, "*sweep"]:
    """Integers of 32 bits; a larger number is refused, not cut."""
    if not isinstance(value, Tracer):
        given = np.asarray(value)
        fits = given.dtype.kind in "iu" and bool((given <= UNLIMITED).all())
        require(fits, field, given.tolist(), f"an integer of at most {UNLIMITED}")
    return jnp.asarray(value, jnp.int32)


def _order(key: Key[Array, ""], n: int) -> Int[Array, " n"]:
    """0 .. n - 1 in a random order."""
    return jnp.argsort(draws.uniform(key, (n,)))


def _by_class(images: "ImageSet", part: str) -> tuple[Float[Array, "m d"], Int[Array, " classes"]]:
    """The images of a part as rows sorted by class, and how many there are of every class."""
    labels = images.labels[images.rows(part)]
    counts = np.bincount(labels, minlength=images.n_classes)
    require(bool((counts > 0).all()), f"classes of {images.name}", counts.tolist(), f"all there in its part {part!r}")
    order = np.argsort(labels, kind="stable")
    return jnp.asarray(images.vectors(part)[order]), jnp.asarray(counts, jnp.int32)
