"""Compare registered models, and promote a challenger that passes the gate."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import NamedTuple

from cifarml.data.dataset import Dataset
from cifarml.errors import GateError
from cifarml.evaluation.compare_models import Comparison, compare_on_dataset
from cifarml.progress import OnProgress, ignore_progress
from cifarml.registry.base import CHAMPION, ModelRegistry, RegisteredModel
from cifarml.registry.promotion_gate import GateCheck, GateLimits, check_gate
from cifarml.registry.run_record import Metric, RunRecord


class Promotion(NamedTuple):
    """Outcome of a promotion.

    Attributes:
        model: The champion.
        comparison: Comparison with the previous champion; None if there was none, or it is the same version.
        checks: Results of the promotion gate.
    """

    model: RegisteredModel
    comparison: Comparison | None
    checks: list[GateCheck]


def compare_models(
    registry: ModelRegistry,
    first: RegisteredModel,
    second: RegisteredModel,
    dataset: Dataset,
    *,
    on_progress: OnProgress = ignore_progress,
) -> Comparison:
    """Compare two registered models on the same images, and log the comparison in the experiment `cifar10`.

    Args:
        registry: The registry of both models and of the experiment.
        first: The model in use (champion).
        second: The model that may replace it (challenger).
        dataset: The images, all of which are used: pass `dataset.test` for the test images only.
        on_progress: Called after every batch.

    Returns:
        Accuracy, recall and calibration of both models, and McNemar's test of the difference.

    Raises:
        DataError: If there are no images, or images of a class that one of the models doesn't know.
        RegistryError: If one of the models does not exist, or the run can't be logged.
        ModelFileError: If a model is damaged.

    Example:
        ```python
        registry = LocalRegistry()
        first, second = registry.get("cifar10", "1"), registry.get("cifar10", "2")
        comparison = compare_models(registry, first, second, load_dataset("cifar10").test)
        comparison.p_value  # 0.031
        ```
    """
    started = datetime.now(UTC)
    comparison = compare_on_dataset(
        registry.open(first),
        registry.open(second),
        dataset,
        names=(str(first), str(second)),
        on_progress=on_progress,
    )
    registry.insert_run(_record(comparison, started))
    return comparison


def promote_if_better(
    registry: ModelRegistry,
    model: RegisteredModel,
    dataset: Dataset,
    *,
    limits: GateLimits | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Promotion:
    """Promote a model to champion if it passes the promotion gate against the current champion.

    Args:
        registry: The registry of the model.
        model: The challenger.
        dataset: Test images that neither model was trained on.
        limits: Limits of the gate; the defaults if omitted.
        on_progress: Called after every batch.

    Returns:
        The champion, with the comparison and the results of the checks.

    Raises:
        GateError: If a check fails; the message lists the reasons.
        RegistryError: If the model does not exist, or another one was promoted at the same time.
        DataError: If there are no images, or images of a class that one of the models doesn't know.
        ModelFileError: If a model is damaged.

    Example:
        ```python
        registry = LocalRegistry()
        challenger = registry.get("cifar10", "challenger")
        promote_if_better(registry, challenger, load_dataset("cifar10").test).model.aliases  # ("champion",)
        ```
    """
    champion = next((each for each in registry.list_models(model.name) if CHAMPION in each.aliases), None)
    if champion is None:
        return Promotion(registry.set_alias(model), None, [])
    if champion.version == model.version:
        return Promotion(champion, None, [])
    comparison = compare_models(registry, champion, model, dataset, on_progress=on_progress)
    checks = check_gate(comparison, limits)
    if not all(check.holds for check in checks):
        failed = "\n".join(f"- {check.name}: {check.reason}" for check in checks if not check.holds)
        raise GateError(
            f"{model} was not promoted; {champion} remains champion:\n{failed}",
            hint=f"promote without the gate: cifarml models promote {model}",
        )
    return Promotion(registry.set_alias(model, instead_of=champion), comparison, checks)


def _record(comparison: Comparison, started: datetime) -> RunRecord:
    both = (comparison.first, comparison.second)
    same = "\n".join((*(each.run_sha256 for each in both), comparison.fingerprint))
    figures = {
        f"{each.name.replace(':', '_')}/{what}": value
        for each in both
        for what, value in (
            ("accuracy", each.accuracy),
            ("loss", each.loss),
            ("calibration_error", each.calibration_error),
            *((f"recall_{name}", recall) for name, recall in each.recall.items()),
        )
    }
    figures |= {
        "num_images": comparison.num_images,
        "num_only_first": comparison.num_only_first,
        "num_only_second": comparison.num_only_second,
        "p_value": comparison.p_value,
    }
    return RunRecord(
        run_id=hashlib.sha256(same.encode()).hexdigest()[:32],
        name=f"{both[0].name} and {both[1].name}",
        started_at=started,
        ended_at=datetime.now(UTC),
        metrics=tuple(Metric(name, value) for name, value in figures.items()),
        parameters={"first": both[0].name, "second": both[1].name, "data": comparison.data},
        tags={"data_fingerprint": comparison.fingerprint, "kind": "comparison"},
    )
