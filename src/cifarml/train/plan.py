"""What a training is going to do: what was asked, and what was chosen for the rest."""

from __future__ import annotations

from typing import NamedTuple

from cifarml.data.dataset import Dataset
from cifarml.model import PRESETS, Preset, Recipe
from cifarml.train.config import TrainConfig
from cifarml.train.device import choose_precision, describe_machine

__all__ = ["Plan"]


class Plan(NamedTuple):
    """All that was chosen for a training, from what was asked, the pictures and the machine."""

    config: TrainConfig
    preset: Preset
    recipe: Recipe
    precision: str

    @classmethod
    def make(cls, config: TrainConfig, pictures: Dataset) -> Plan:
        """Choose what ``config`` leaves open.

        Args:
            config: What was asked.
            pictures: Those to train on.
        """
        preset = PRESETS[config.preset]
        recipe = preset.choose_recipe(len(pictures), len(pictures.class_names)).changed(**config.changes)
        precision: str = config.precision
        if precision == "auto":
            # The article's network is too thin to gain from less, and stays as it stands there.
            precision = "float32" if config.preset == "tutorial" else choose_precision()
        return cls(config, preset, recipe, precision)

    def to_json(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        asked = self.config.model_dump(include={"preset", "validation_fraction", "seed"})
        return {**asked, "precision": self.precision, **self.recipe.model_dump(mode="json")}

    def say(self, num_images: int) -> str:
        """Say it to a person, in two lines."""
        recipe = self.recipe
        changes = [
            *(["mirrored"] if recipe.flip else []),
            *([f"moved by up to {recipe.shift}"] if recipe.shift else []),
            *([f"a square of {recipe.cutout} greyed out"] if recipe.cutout else []),
            *(["distorted"] if recipe.distortion else []),
            *(["recoloured"] if recipe.colour else []),
            *(["mixed in pairs"] if recipe.mixing else []),
        ]
        widths = f", widths {'/'.join(map(str, recipe.widths))}" if recipe.widths else ""
        return (
            f"{self.config.preset}: {recipe.num_epochs} epochs of {num_images:,} pictures in batches of "
            f"{recipe.batch_size}{widths}; pictures {', '.join(changes) or 'as they are'}\n"
            f"{self.precision} on {describe_machine()}"
        )
