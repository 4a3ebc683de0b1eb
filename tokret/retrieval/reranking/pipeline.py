"""A pipeline of re-rankings by name: "dba:n=10,aqe:n=10,alpha=3"."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import msgspec
import numpy as np

from tokret.arguments import choose, reject_unknown
from tokret.config.parsing import number_range, plain_type
from tokret.errors import UserError
from tokret.retrieval.exact_search.blocks import read_in_blocks
from tokret.retrieval.reranking.diffusion import rerank_diffusion
from tokret.retrieval.reranking.expansion import augment_database, expand_queries
from tokret.retrieval.reranking.k_reciprocal import rerank_k_reciprocal
from tokret.retrieval.reranking.ranking import Progress, Ranking
from tokret.retrieval.reranking.superglobal import rerank_superglobal

LENGTH_TOLERANCE = 0.01  # more than half precision on the disk needs

# Functions of a ranking; their other parameters, with their defaults and ranges, are
# the arguments. Those with `progress` re-rank the first items, the others change
# descriptors.
METHODS: Mapping[str, Callable[..., Ranking]] = {
    "dba": augment_database,
    "aqe": expand_queries,
    "superglobal": rerank_superglobal,
    "k_reciprocal": rerank_k_reciprocal,
    "diffusion": rerank_diffusion,
}


@dataclass(frozen=True)
class Step:
    """One re-ranking of a pipeline."""

    name: str  # one of METHODS
    # all of its arguments, including defaults
    arguments: Mapping[str, int | float | str]

    @property
    def reorders(self) -> bool:
        """Whether it re-ranks the first items instead of changing descriptors."""
        return "progress" in inspect.signature(METHODS[self.name]).parameters


def parse_pipeline(rerank: str) -> tuple[Step, ...]:
    """Parses names separated by commas, each with its arguments after a colon.

    Such as "aqe", or "dba:n=10,weighting=equal,aqe:n=5,alpha=3,diffusion".

    Raises:
      UserError: a method or an argument does not exist, a value is outside its range,
        or a step is after one that must be the last.
    """
    given: list[tuple[str, dict[str, str]]] = []
    for part in rerank.split(","):
        first, _, argument = part.strip().partition(":")
        if "=" in first:
            argument = part.strip()  # one more of the last method
        else:
            choose(METHODS, first, "rerank: a method")
            given.append((first, {}))
        if argument:
            _add_argument(given, argument, rerank)
    steps = tuple(Step(name, _arguments(name, values)) for name, values in given)
    for step, after in zip(steps, steps[1:], strict=False):
        if step.reorders:
            raise UserError(
                f"rerank: {step.name} re-ranks the first items, and {after.name} would "
                f"start from the descriptors again; {step.name} must be the last"
            )
    return steps


def run_step(
    step: Step, ranking: Ranking, progress: Progress = lambda done: None
) -> Ranking:
    """Runs one step on a ranking that has no `reranked`, since such a step is the last.

    `progress` is called after every query of a step that re-ranks the first items.
    """
    # `lambda` cannot be a parameter's name in Python.
    arguments = {
        "lambda_" if name == "lambda" else name: value
        for name, value in step.arguments.items()
    }
    watched = {"progress": progress} if step.reorders else {}
    return METHODS[step.name](ranking, **arguments, **watched)


def check_rankable(ranking: Ranking) -> None:
    """Checks, before the first step, that the formulas of re-rankings hold.

    Raises:
      UserError: a descriptor is neither of length 1 nor zeros.
    """
    for name in ("queries", "database"):
        for part, rows in read_in_blocks(getattr(ranking, name)):
            length = np.asarray(jnp.linalg.norm(jnp.asarray(rows), axis=1))
            wrong = (np.abs(length - 1) > LENGTH_TOLERANCE) & (length > 0)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise UserError(
                    f"rerank: row {part.start + row} of the {name} has length "
                    f"{length[row]:.4g}; products of descriptors must be cosines: "
                    "divide each row by its length"
                )


def check_leave_one_out(steps: Sequence[Step]) -> None:
    """Checks that a pipeline can be measured where items are queries for each other.

    Raises:
      UserError: a step mixes the query item into the others' descriptors, where it
        would vote for itself.
    """
    if any(step.name == "dba" for step in steps):
        raise UserError(
            "rerank: dba would mix each query photo into the photos it searches; in "
            "leave-one-out use a pipeline without dba"
        )


def _add_argument(
    given: list[tuple[str, dict[str, str]]], argument: str, rerank: str
) -> None:
    """Adds name=value to the last method."""
    name, equals, value = argument.partition("=")
    if not (given and name and equals and value):
        raise UserError(
            f"rerank={rerank}: {argument!r} is no argument of a method; write "
            "METHOD:NAME=VALUE,NAME=VALUE,METHOD"
        )
    method, arguments = given[-1]
    if name in arguments:
        raise UserError(f"rerank={rerank}: {method} has {name} twice; remove one")
    arguments[name] = value


def _arguments(name: str, values: Mapping[str, str]) -> dict[str, int | float | str]:
    """A method's arguments: its defaults, and the values given, checked."""
    parameters = {
        parameter.name.rstrip("_"): parameter
        for parameter in inspect.signature(METHODS[name]).parameters.values()
        if parameter.name not in ("ranking", "progress")
    }
    reject_unknown(values, set(parameters), f"rerank={name}:")
    arguments = {key: parameter.default for key, parameter in parameters.items()}
    for key, text in values.items():
        where, kind = f"rerank={name}:{key}={text}", parameters[key].annotation
        if typing.get_origin(kind) is typing.Literal:
            choose(dict.fromkeys(typing.get_args(kind)), text, where)
        try:
            arguments[key] = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as error:
            plain, limits = plain_type(kind)
            number = "a whole number" if plain is int else "a number"
            assert limits is not None
            raise UserError(
                f"{where}: {key} must be {number} {number_range(limits)}"
            ) from error
    return arguments
