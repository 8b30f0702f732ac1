"""YAML of settings: plain data, and no more of it than a person writes."""

from typing import Any

_MOST_NODES = 100_000


def load(text: str) -> Any:
    """Return the data of a YAML document. Tags that are code are refused, as `yaml.safe_load` does.

    An alias stands for what it names, so a few lines can stand for more data than fits into memory once something walks
    through it, as merging, printing and comparing do. So the data is counted first, each alias as all that it stands for.

    Args:
        text: of the document.

    Raises:
        ValueError: it is no YAML, or stands for too much.
    """
    import yaml  # here: `rlgrad.gradients` stands on this package, and needs TensorFlow and NumPy alone

    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _Count().of(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    # What a constructor raises for a value that its tag does not fit is any of these.
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


class _Count:
    """Counts the nodes of a document, those below an alias each time."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._above: set[int] = set()

    def of(self, node: Any) -> int:
        """Return the number of nodes from this one down.

        Raises:
            ValueError: there are too many, or an alias stands for something that it is in itself.
        """
        if id(node) in self._above:
            raise ValueError("an alias stands for something that contains it")
        if id(node) not in self._known:
            self._above.add(id(node))
            inner = node.value if isinstance(node.value, list) else []
            parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            count = 1 + sum(map(self.of, parts))
            if count > _MOST_NODES:
                raise ValueError(f"with its aliases written out it holds more than {_MOST_NODES:,} values")
            self._above.discard(id(node))
            self._known[id(node)] = count
        return self._known[id(node)]
