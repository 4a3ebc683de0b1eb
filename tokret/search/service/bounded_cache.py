"""A cache of bounded count and bytes: the least recently used leaves first."""

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Values by key, each with its size in bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """Takes the most values and the most bytes of all of them."""
        self.most, self.most_bytes, self.bytes = most, most_bytes, 0
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        """The number of values."""
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Returns a value, which is then the last to leave; None if there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Key, value: Value, size: int = 0) -> None:
        """Keeps a value, unless it alone is larger than all may be."""
        if size > self.most_bytes:
            return
        self.bytes -= self._values.pop(key, (None, 0))[1]
        self._values[key] = value, size
        self.bytes += size
        while len(self._values) > self.most or self.bytes > self.most_bytes:
            self.bytes -= self._values.popitem(last=False)[1][1]
