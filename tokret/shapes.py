"""Shape annotations: jaxtyping where it is installed, else the bare array type.

Models, the training step and search run where only jax, flax, optax and numpy are
installed. The annotations cost nothing there; the tests check them at run time. JAX is
imported only by modules that take `Array` or `PRNGKeyArray`: photos are decoded in
processes that need none.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, Shaped, UInt8
    except ImportError:

        class _Unchecked:
            """Stands for an annotation such as Float[Array, "b d"]: its array type."""

            def __class_getitem__(cls, annotation: tuple[Any, str]) -> Any:
                return annotation[0]

        Bool = Float = Int = Shaped = UInt8 = _Unchecked

    def __getattr__(name: str) -> Any:
        if name not in ("Array", "PRNGKeyArray"):
            raise AttributeError(name)
        try:
            import jaxtyping as source
        except ImportError:
            import jax as source
        return getattr(source, name, None) or source.Array


__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "Shaped", "UInt8"]
