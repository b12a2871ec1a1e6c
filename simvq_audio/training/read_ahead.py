"""Work in advance in threads, in a fixed order.

Threads are enough: libsndfile, soxr and NumPy release the GIL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

from simvq_audio.training.sampling import CropSource

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Key = tuple[int, int, int, int]


class Prefetched:
    """A ``CropSource`` that prepares the batches of the next steps while one is trained on.

    Batches are the same as without it, in any order, but only those of consecutive steps are ready
    in advance. A context manager; ``close`` ends the threads.

    Args:
        source: where the batches come from.
        threads: batches prepared at a time.
        ahead: steps prepared in advance.
    """

    def __init__(self, source: CropSource, *, threads: int = 2, ahead: int = 8) -> None:
        self._source = source
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="crops")
        self._pending: dict[_Key, Future[tuple[Tensor, Tensor]]] = {}

    def batch(
        self, step: int, size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See ``CropSource.batch``; raises what the source raises."""
        wanted = [(step + i, size, rank, world_size) for i in range(self._ahead + 1)]
        for key in self._pending.keys() - set(wanted):
            self._pending.pop(key).cancel()
        for key in wanted:
            if key not in self._pending:
                self._pending[key] = self._pool.submit(self._source.batch, *key)
        return self._pending.pop(wanted[0]).result()

    def close(self) -> None:
        """End the threads; batches in preparation are dropped."""
        self._pending.clear()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def ordered_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Yield ``function(item)`` in the order of ``items``, computed in threads in advance.

    Unlike ``Executor.map`` it keeps few results in memory.
    """
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
