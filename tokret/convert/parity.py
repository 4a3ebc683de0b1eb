"""Differences between tokret and its own PyTorch form, by stage, on the same weights.

Two independently written programs process the same random images of several sizes. A
row's difference includes that of the stages before it: an error is in the first stage
with a large one.
"""

import functools
from collections.abc import Mapping, Sequence
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
HEAD_FIELDS = (
    "dim",
    "width",
    "tokens",
    "num_heads",
    "attention_layers",
    "refinement_layers",
)


class StageDifference(NamedTuple):
    """One stage of the model, over all images.

    Attributes:
      stage: block1, ..., embedding, descriptor.
      difference: the largest absolute one between the two models.
      magnitude: the largest absolute value in the PyTorch form.
    """

    stage: str
    difference: float
    magnitude: float

    @property
    def relative(self) -> float:
        """The difference divided by the magnitude; NaN is kept."""
        if self.difference == 0:
            return 0.0
        return self.difference / self.magnitude if self.magnitude else float("inf")


def compare(
    state_dict: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
) -> list[StageDifference]:
    """Compares a model named by its config with its PyTorch form, in float64.

    Args:
      state_dict: tensors by their released names.
      fields: those of `config.model`.
      sizes: heights and widths of the images; by default three drawn ones.
      seed: of images and sizes.

    Returns:
      A row a stage, from the stem to the descriptor.

    Raises:
      UserError: if the model has no PyTorch form, or PyTorch is not installed.
    """
    model = build_model(**{**fields, "dtype": "float32"})
    return compare_model(
        state_dict, model, sizes=sizes or random_sizes(3, seed), seed=seed
    )


def compare_model(
    state_dict: Mapping[str, np.ndarray],
    model: RetrievalNet,
    *,
    sizes: Sequence[tuple[int, int]],
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

    Returns:
      A row a stage, from the stem to the descriptor.

    Raises:
      UserError: if the model has no PyTorch form, or PyTorch is not installed.
    """
    rng = np.random.default_rng(seed)
    images = [rng.standard_normal((*size, 3)).astype(dtype) for size in sizes]
    theirs = _torch_stages(state_dict, model, images)
    if variables is None:
        variables = from_released(state_dict)
    padded = _tokret_stages(variables, model, images)
    ours = [_alone(padded, i, reference) for i, reference in enumerate(theirs)]
    return [
        _stage_difference(
            stage, [(a[stage], b[stage]) for a, b in zip(ours, theirs, strict=True)]
        )
        for stage in theirs[0]
    ]


def random_sizes(
    count: int, seed: int, smallest: int = 64, largest: int = 160
) -> list[tuple[int, int]]:
    """Draws heights and widths, odd ones among them."""
    drawn = np.random.default_rng(seed).integers(smallest, largest + 1, (count, 2))
    return [(int(height), int(width)) for height, width in drawn]


def agree(rows: Sequence[StageDifference], bound: float = BOUND) -> bool:
    """Whether no stage differs by more than `bound` of its largest value."""
    return all(row.relative <= bound for row in rows)  # NaN is below no bound


def report(rows: Sequence[StageDifference], bound: float = BOUND) -> str:
    """Formats the table of differences, and below it whether all are small.

    Args:
      rows: of `compare`.
      bound: largest difference, divided by its stage's largest value.
    """
    lines = [f"{'stage':<12}{'difference':>12}{'largest value':>16}{'relative':>12}"]
    lines += [
        f"{row.stage:<12}{row.difference:>12.1e}{row.magnitude:>16.3g}"
        f"{row.relative:>12.1e}"
        for row in rows
    ]
    above = [row.stage for row in rows if not row.relative <= bound]
    verdict = f"all {len(rows)} stages agree to {bound:.0e} of their largest value"
    if above:
        verdict = (
            f"{len(above)} of {len(rows)} stages differ by more than {bound:.0e} of "
            f"their largest value, the first of them {above[0]}"
        )
    return "\n".join([*lines, verdict])


def _stage_difference(
    stage: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> StageDifference:
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape, (stage, ours.shape, theirs.shape)
    # Not Python's max, which may lose a NaN.
    difference = np.max([np.abs(ours - theirs).max() for ours, theirs in pairs])
    magnitude = np.max([np.abs(theirs).max() for _, theirs in pairs])
    return StageDifference(stage, float(difference), float(magnitude))


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
        raise UserError(
            "the comparison needs PyTorch: pip install 'tokret[torch]'"
        ) from error
    with torch.device("meta"):
        mirror = Token(**_mirror_fields(model, state_dict))
    dtype = images[0].dtype
    tensors = {
        name: torch.from_numpy(np.array(tensor, dtype))
        for name, tensor in state_dict.items()
    }
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
    same = RetrievalNet(
        model.trunk.clone(parent=None, dtype=dtype),
        model.head.clone(parent=None, dtype=dtype),
    )
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
    """Extracts one image's true area from a padded batch, in PyTorch's layout.

    Args:
      padded: blocks [b, h, w, c], attention [b, tokens, h, w], local and lfsa
        [b, h * w, d], and stages without positions.
      i: the image.
      reference: the same image's stages, whose shapes give the true area.
    """
    canvas = padded["attention"].shape[2:]
    rows, columns = reference["attention"].shape[1:]
    found = {}
    for stage, theirs in reference.items():
        x = padded[stage][i]
        if stage.startswith("block"):
            x = x[: theirs.shape[1], : theirs.shape[2]].transpose(2, 0, 1)
        elif stage == "attention":
            x = x[:, :rows, :columns]
        elif stage in ("local", "lfsa"):
            x = x.reshape(*canvas, -1)[:rows, :columns]  # [h, w, d]
            x = x.reshape(rows * columns, -1)
        found[stage] = x
    return found
