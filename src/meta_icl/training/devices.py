"""Where replicas compute: in rounds, one after the other, each round on a mesh of devices.

On accelerators a round holds as many replicas as fit into memory, spread over the axis `replicas` of the mesh. Where a
large network has fewer replicas than there are devices, the devices left over share its batch: they are the axis
`prompts`, along which `prompt.in_blocks` spreads what a predictor answers.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from meta_icl.errors import BadInput

T = TypeVar("T")
REPLICAS, PROMPTS = "replicas", "prompts"
LARGE = 1_000_000  # parameters of a network whose steps take longer than devices take to add up their gradients


@dataclass(frozen=True)
class Rounds:
    """How `n` replicas are divided: rounds of `size` replicas, on a mesh if there is one.

    The last round is filled up with copies of its last replica, so that one program serves all rounds.
    """

    n: int
    size: int
    mesh: Mesh | None = None

    @property
    def starts(self) -> range:
        """The number of the first replica of every round."""
        return range(0, self.n, self.size)

    @property
    def text(self) -> str:
        """The division in words; what rounding leaves in the bits of a result may depend on it."""
        if self.mesh is None:
            return "one replica at a time"
        shape = self.mesh.shape
        return f"{self.size} replicas at once on {shape[REPLICAS]} x {shape[PROMPTS]} devices"

    def divided(self, items: Sequence[T]) -> list[list[T]]:
        """What belongs to every round."""
        rounds = [list(items[start : start + self.size]) for start in self.starts]
        return [one + one[-1:] * (self.size - len(one)) for one in rounds]

    def placed(self, tree: T) -> T:
        """A tree whose arrays have the replicas of a round in front, on the devices where they compute."""
        return tree if self.mesh is None else jax.device_put(tree, self.sharding)

    @property
    def sharding(self) -> NamedSharding | None:
        """Of such arrays."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(REPLICAS))

    def active(self) -> AbstractContextManager[Any]:
        """While active, programs are traced and called for the mesh."""
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def mesh_for(n: int, batch: int, parameters: int, devices: Sequence[Any]) -> Mesh:
    """The mesh for `n` replicas of a network: no more devices than replicas fill, or than can share a large batch."""
    each = -(-n // len(devices))
    along_replicas = -(-n // each)
    spare = len(devices) // along_replicas if parameters >= LARGE else 1
    along_prompts = max(share for share in range(1, spare + 1) if batch % share == 0)
    shape = along_replicas, along_prompts
    used = list(devices)[: along_replicas * along_prompts]
    return jax.make_mesh(shape, (REPLICAS, PROMPTS), axis_types=(AxisType.Auto,) * 2, devices=used)


def fitting(n: int, mesh: Mesh, needed: Callable[[Rounds], int], limit: int | None) -> Rounds:
    """The fewest rounds whose programs fit into the `limit` of bytes of a device, if one is known.

    `needed(rounds)` is the number of bytes that a device needs for them. Raises `BadInput` if one replica alone, with
    the states of the others beside it, does not fit.
    """
    along = mesh.shape[REPLICAS]
    each = -(-n // along)  # replicas of a round on every device
    while True:
        rounds = Rounds(n, each * along, mesh)
        if limit is None or (bytes_ := needed(rounds)) <= limit:
            return rounds
        if each == 1:
            raise BadInput(
                f"this training needs {bytes_ / 1e9:.3g} GB of a device that offers {limit / 1e9:.3g} GB, even one "
                "replica at a time: use a smaller batch or network, or more devices"
            )
        total = -(-n // along)
        count = -(-total // max(1, min(each - 1, each * limit // bytes_)))  # rounds of about equal size
        each = -(-total // count)


def bytes_offered(mesh: Mesh) -> int | None:
    """The memory of the smallest device of a mesh, as far as it is told; nothing is of a CPU's."""
    told = [(device.memory_stats() or {}).get("bytes_limit") for device in mesh.devices.flat]
    return min((limit for limit in told if limit), default=None)
