"""Shape annotations: jaxtyping where it is installed, else the bare array type.

Models, the training step and search run where only jax, flax, optax and numpy are
installed. The annotations cost nothing there; the tests check them at run time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8
else:
    try:
        from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8
    except ImportError:
        from jax import Array

        class _Unchecked:
            """Stands for an annotation such as Float[Array, "b d"]: its array type."""

            def __class_getitem__(cls, annotation: tuple[Any, str]) -> Any:
                return annotation[0]

        Bool = Float = Int = Shaped = UInt8 = _Unchecked
        PRNGKeyArray = Array

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "Shaped", "UInt8"]
