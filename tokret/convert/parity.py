"""Differences between tokret and its own PyTorch form, by stage, on the same weights.

Two independently written programs process the same random images of several sizes. A
row's difference includes that of the stages before it: an error is in the first stage
with a large one.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tokret.convert.released import from_released
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import Bottleneck, ResNet
from tokret.shapes import Array, Float, Int

Stages = dict[str, np.ndarray]  # every stage's output, by name

BOUND = 1e-8  # in float64
HEAD_FIELDS = "dim width tokens num_heads attention_layers refinement_layers".split()


class StageDifference(NamedTuple):
    """One stage of the model, over all images."""

    stage: str  # block1, ..., embedding, descriptor
    difference: float  # the largest absolute one between the two models
    magnitude: float  # the largest absolute value in the PyTorch form

    @property
    def relative(self) -> float:
        """The difference divided by the magnitude; NaN is kept."""
        if self.difference == 0:
            return 0.0
        return self.difference / self.magnitude if self.magnitude else float("inf")


def compare(
    state_dict: Mapping[str, np.ndarray], fields: Mapping[str, Any]
) -> list[StageDifference]:
    """Compares a model with its PyTorch form in float64, on images of three sizes.

    Args:
      state_dict: tensors by their released names.
      fields: those of `config.model`.

    Returns:
      A row a stage, from the stem to the descriptor.

    Raises:
      UserError: if the model has no PyTorch form, or PyTorch is not installed.
    """
    model = build_model(**{**fields, "dtype": "float32"})
    sizes = np.random.default_rng(0).integers(64, 161, (3, 2)).tolist()
    return compare_model(state_dict, model, sizes=sizes, seed=0)


def compare_model(
    state_dict: Mapping[str, np.ndarray],
    model: RetrievalNet,
    *,
    sizes: Iterable[Sequence[int]],
    seed: int,
    variables: Any = None,
    dtype: str = "float64",
) -> list[StageDifference]:
    """Runs both models on the same random images, one of each size.

    Args:
      state_dict: tensors by their released names.
      model: a bottleneck ResNet and Token's head, of any dtype.
      sizes: heights and widths. tokret takes all of them in one padded batch, the
        PyTorch form each alone: that padding changes nothing is compared as well.
      seed: of the images, which are drawn as if normalised.
      variables: what tokret's model runs with; by default, the converted state dict.
      dtype: of both computations, float64 or float32.

    Returns and raises as `compare`.
    """
    rng = np.random.default_rng(seed)
    images = [rng.standard_normal((*size, 3)).astype(dtype) for size in sizes]
    theirs = _torch_stages(state_dict, model, images)
    if variables is None:
        variables = from_released(state_dict)
    padded = _tokret_stages(variables, model, images)
    ours = [_alone(padded, i, reference) for i, reference in enumerate(theirs)]
    found = []
    for stage in theirs[0]:
        a, b = ([stages[stage] for stages in side] for side in (ours, theirs))
        assert [x.shape for x in a] == [x.shape for x in b], stage
        # Not Python's max, which may lose a NaN.
        difference = np.max([np.abs(x - y).max() for x, y in zip(a, b, strict=True)])
        magnitude = np.max([np.abs(y).max() for y in b])
        found.append(StageDifference(stage, float(difference), float(magnitude)))
    return found


def disagreeing(rows: Sequence[StageDifference]) -> list[str]:
    """Names the stages that differ by more than `BOUND` of their largest value."""
    return [row.stage for row in rows if not row.relative <= BOUND]  # NaN does


def report(rows: Sequence[StageDifference]) -> str:
    """Formats the table of differences, and below it whether all are small."""
    lines = [f"{'stage':<12}{'difference':>12}{'largest value':>16}{'relative':>12}"]
    lines += [
        f"{row.stage:<12}{row.difference:>12.1e}{row.magnitude:>16.3g}"
        f"{row.relative:>12.1e}"
        for row in rows
    ]
    verdict = f"all {len(rows)} stages agree to {BOUND:.0e} of their largest value"
    if above := disagreeing(rows):
        verdict = (
            f"{len(above)} of {len(rows)} stages differ by more than {BOUND:.0e} of "
            f"their largest value, the first of them {above[0]}"
        )
    return "\n".join([*lines, verdict])


def _torch_stages(
    state_dict: Mapping[str, np.ndarray],
    model: RetrievalNet,
    images: Sequence[np.ndarray],
) -> list[Stages]:
    """Runs the PyTorch form on each image [h, w, 3] alone, in the images' dtype."""
    try:
        import torch

        from tokret.convert.torch_token import Token
    except ImportError as error:
        raise UserError("the comparison needs PyTorch: pip install torch") from error
    with torch.device("meta"):
        mirror = Token(**_mirror_fields(model, state_dict))
    dtype = images[0].dtype
    arrays = {name: np.array(tensor, dtype) for name, tensor in state_dict.items()}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        mirror.load_state_dict(tensors, assign=True)
    except RuntimeError as error:  # lists all names and shapes that do not match
        raise UserError(f"the weights do not fit the model: {error}") from error
    mirror.eval()
    found = []
    with torch.inference_mode():
        for image in images:
            batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            descriptor, taps = mirror(batch[None])
            stages = {**taps, "descriptor": descriptor}
            found.append({name: x[0].numpy() for name, x in stages.items()})
    return found


def _mirror_fields(
    model: RetrievalNet, state_dict: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns the arguments that make the PyTorch form of a model."""
    trunk, head = model.trunk, model.head
    if not isinstance(trunk, ResNet) or trunk.block is not Bottleneck:
        raise UserError("only bottleneck ResNets are compared with a PyTorch form")
    if not isinstance(head, TokenHead):
        raise UserError("only Token's head is compared with a PyTorch form")
    classifier = state_dict.get("classifier.weight")
    return {
        "blocks": trunk.blocks,
        "trunk_width": trunk.width,
        "num_classes": None if classifier is None else len(classifier),
        **{field: getattr(head, field) for field in HEAD_FIELDS},
    }


def _tokret_stages(
    variables: Any, model: RetrievalNet, images: Sequence[np.ndarray]
) -> Stages:
    """Runs tokret's model on images [h, w, 3] in one padded batch, in their dtype."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    dtype = images[0].dtype
    batch = np.zeros((len(images), *sizes.max(axis=0), 3), dtype)
    for i, (height, width) in enumerate(sizes):
        batch[i, :height, :width] = images[i]
    parts = (x.clone(parent=None, dtype=dtype) for x in (model.trunk, model.head))
    same = RetrievalNet(*parts)
    with jax.enable_x64(dtype == np.float64):
        model_variables = {
            key: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables[key])
            for key in ("params", "batch_stats")
        }
        return jax.device_get(_run(same, model_variables, batch, sizes))


@functools.partial(jax.jit, static_argnums=0)
def _run(
    model: RetrievalNet,
    variables: Any,
    images: Float[Array, "b h w 3"],
    sizes: Int[Array, "b 2"],
) -> dict[str, jax.Array]:
    descriptor, taps = model.apply(variables, images, sizes, train=False)
    return {**taps, "descriptor": descriptor}


def _alone(padded: Stages, i: int, reference: Stages) -> Stages:
    """Extracts one image's true area from a padded batch, in PyTorch's layout."""
    canvas = padded["attention"].shape[2:]  # of [b, tokens, h, w]
    rows, columns = reference["attention"].shape[1:]
    found = {}
    for stage, theirs in reference.items():
        x = padded[stage][i]
        if stage.startswith("block"):  # [h, w, c]
            x = x[: theirs.shape[1], : theirs.shape[2]].transpose(2, 0, 1)
        elif stage == "attention":
            x = x[:, :rows, :columns]
        elif stage in ("local", "lfsa"):  # [h * w, d]
            x = x.reshape(*canvas, -1)[:rows, :columns].reshape(rows * columns, -1)
        found[stage] = x
    return found
