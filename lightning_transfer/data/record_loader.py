"""Loaders of records: they read a cache where there is one, and a resumed fit goes on where it stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lightning_transfer.data.stored_batches import StoredBatches, record_dataset

__all__ = ["RecordLoader", "ResumableLoader"]


class RecordLoader(DataLoader[Any]):
    """A DataLoader that takes its batches from a cache while there is one, in this process, and else from its data.

    What is drawn, in which order, and what is left out, is the sampler's affair in both cases. Whether there is a cache
    is asked when the first batch is, and whether it is still that of the weights as they are: whoever changes these
    between two passes, as mixing does, gets its inputs.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # a generator, not the class that torch names
        return self._pass()

    def _pass(self) -> Iterator[Any]:
        batches = self._stored_batches()
        yield from super().__iter__() if batches is None else batches

    def _stored_batches(self, skip: int = 0) -> Iterator[Any] | None:
        """Return the batches of the cache, without the first ones; None where there is none."""
        dataset, items = record_dataset(self.dataset)
        stored: StoredBatches | None = getattr(dataset, "stored", None)
        if stored is None or self.batch_sampler is None or not stored.is_current():
            return None
        drawn = (
            [key if items is None else items[key] for key in keys]
            for number, keys in enumerate(self.batch_sampler)
            if number >= skip
        )
        return (stored.batch(keys) for keys in drawn)


class ResumableLoader(RecordLoader):
    """A DataLoader that a resumed fit starts where the interrupted one stood, without loading what was trained on.

    Lightning saves the ``state_dict`` with each checkpoint, and gives it back when an epoch is resumed in its middle.
    The sampler must give the same order again for the same epoch, as `EpochSampler` does; a distributed sampler around
    it may. What counts are batches that were handed out, not those that workers have loaded ahead.

    Example:
        >>> loader = ResumableLoader(range(10), batch_size=3)
        >>> _ = next(batches := iter(loader))
        >>> state = loader.state_dict()
        >>> state
        {'batches': 1, 'of': 4}
        >>> again = ResumableLoader(range(10), batch_size=3)
        >>> again.load_state_dict(state)
        >>> [batch.tolist() for batch in again]
        [[3, 4, 5], [6, 7, 8], [9]]
    """

    # Of the class, since Lightning makes the loader anew from its arguments when it puts in another sampler.
    _given = 0
    _skip = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of this epoch were handed out, and how many there are."""
        return {"batches": self._given, "of": len(self)}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Leave out, in the next pass alone, the batches that were handed out."""
        if state_dict["of"] != len(self):
            rank_zero_warn(
                f"The checkpoint was made in an epoch of {state_dict['of']} batches, and now there are {len(self)}: "
                f"the first {state_dict['batches']} are left out, but they are not those that were trained on. Resume "
                "with the same data, batch size and number of processes, or from the end of an epoch."
            )
        self._skip = state_dict["batches"]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # as of its base
        skip, self._skip = self._skip, 0
        self._given = skip
        return self._hand_out(skip)

    def _hand_out(self, skip: int) -> Iterator[Any]:
        """Start at the first request: workers draw indices at once, and Lightning sets the epoch after ``iter``."""
        stored = self._stored_batches(skip)
        for batch in stored if stored is not None else self._rest(skip) if skip else super().__iter__():
            self._given += 1
            yield batch

    def _rest(self, skip: int) -> DataLoader[Any]:
        """Return a loader of the batches after the first ``skip``; their indices are drawn, but nothing is loaded."""
        if self.batch_sampler is None:
            raise ValueError("A ResumableLoader makes batches; got `batch_size=None`.")
        return DataLoader(
            self.dataset,
            batch_sampler=list(islice(self.batch_sampler, skip, None)),
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            pin_memory=self.pin_memory,
            timeout=self.timeout,
            worker_init_fn=self.worker_init_fn,
            multiprocessing_context=self.multiprocessing_context,
            generator=self.generator,
            prefetch_factor=self.prefetch_factor,
        )
