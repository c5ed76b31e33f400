"""Which rows of a global batch each worker makes; together, the workers make each row once."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shard:
    """One worker's part of every global batch.

    Args:
        worker: Number of the worker, from 0.
        workers: Number of workers; all make the same number of rows.
        replicas: Replicas (devices) of this worker; each gets its own batch.
    """

    worker: int = 0
    workers: int = 1
    replicas: int = 1

    def check(self, batch_size: int, group_size: int) -> None:
        """Raises `ValueError` if a global batch cannot be split like this."""
        parts = self.workers * self.replicas
        if batch_size % parts:
            raise ValueError(
                f"`batch_size` must be a multiple of the {parts} replicas ({self.workers} "
                f"workers with {self.replicas} each). Received: batch_size={batch_size}"
            )
        rows = batch_size // self.workers
        if batch_size % group_size or (rows % group_size and group_size % rows):
            raise ValueError(
                f"`mixing_batch_size` must divide batch_size={batch_size}, and divide the {rows} "
                "rows of a worker or be a multiple of them. "
                f"Received: mixing_batch_size={group_size}"
            )
        if self.workers > 1 and group_size > 1 and rows % 2:
            raise ValueError(
                "`batch_size` must give each worker an even number of rows, because rows are "
                f"mixed in pairs. Received: batch_size={batch_size} for {self.workers} workers"
            )

    def rows(self, batch_size: int, group_size: int) -> np.ndarray:
        """Numbers, within a global batch, of the rows that this worker makes; int64, ascending.

        Rows of a group are mixed in pairs, the first with the last and so on inwards, so both
        rows of a pair go to the same worker, and the pairs go to the workers in order.
        """
        rows = np.arange(batch_size)
        within = rows % group_size
        pair = np.minimum(within, group_size - 1 - within)
        owner = (rows - within + 2 * pair) * self.workers // batch_size
        return np.flatnonzero(owner == self.worker)

    def groups(self, batch_size: int, group_size: int) -> range:
        """Numbers, within a global batch, of the groups that this worker's rows belong to."""
        rows = batch_size // self.workers
        first = self.worker * rows // group_size
        return range(first, first + max(1, rows // group_size))
