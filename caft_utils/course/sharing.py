"""Share the parts of a study among processes that measure it in one store."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from caft_utils.finetuning import processes
from caft_utils.store import default_store

Item = TypeVar("Item", bound=Hashable)
Made = TypeVar("Made")


def shared(items: Iterable[Item], kind: str, key: Callable[[Item], Mapping[str, Any]]) -> Iterator[Item]:
    """Yield all items like `Store.shared`; kind and key name an item.

    Processes of one launcher (torchrun, accelerate) share each fine-tuning instead. They get the items in
    order, because all of them must take the same one at the same time.
    """
    return default_store().shared(items, kind, key) if processes.is_alone() else iter(items)


def shared_results(
    items: Iterable[Item], kind: str, key: Mapping[str, Any], make: Callable[[Item], Made]
) -> dict[Item, Made]:
    """Return {item: make(item)} in the order of the items. Processes with one store share the work.

    `make` must store what takes long. Each process calls it for every item. It comes last to the items that
    another process has taken, and finds their results in the store.
    """
    items, made = list(items), {}
    for item in shared(items, kind, lambda item: {**key, "item": item}):
        made[item] = make(item)
    return {item: made[item] for item in items}
