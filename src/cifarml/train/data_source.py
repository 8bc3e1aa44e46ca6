"""Source of a run's images, stored so that the run can be resumed with the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifarml.data.blob.address import BlobAddress, is_blob_address
from cifarml.data.dataset import Dataset
from cifarml.data.load import is_path, load_dataset
from cifarml.errors import TrainingError
from cifarml.paths import expand_home
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import Run, write_json
from cifarml.run_folders import CHECKPOINT, SOURCE, check_version


class Source(BaseModel):
    """Arguments of :func:`cifarml.load_dataset`, immutable.

    Example:
        >>> len(Source(data="drawn:2000", subset=100).load())
        100
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description="path, address or name")
    subset: int | None = Field(default=None, description="number of images, balanced over the classes")
    subset_seed: int = Field(default=0, description="random seed of the subset")
    skip_bad: bool = Field(default=False, description="skip images that can't be read")

    @property
    def flags(self) -> list[str]:
        """Flags of ``cifarml train``, other than ``--data``, that load the same images."""
        flags = [] if self.subset is None else ["--subset", str(self.subset)]
        flags += ["--subset-seed", str(self.subset_seed)] if self.subset_seed else []
        return flags + (["--skip-bad"] if self.skip_bad else [])

    def load(self, *, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Load the images; it raises the errors of :func:`cifarml.load_dataset`."""
        return load_dataset(
            self.data,
            subset=self.subset,
            seed=self.subset_seed,
            skip_bad=self.skip_bad,
            on_progress=on_progress,
        )

    def write(self, run_dir: Path) -> None:
        """Write the source to an unfinished run folder, with absolute paths and without secrets."""
        data = self.data
        if is_blob_address(data):
            data = str(BlobAddress.parse(data))
        elif is_path(data):
            data = str(expand_home(data).resolve())
        write_json(run_dir / CHECKPOINT / SOURCE, self.model_copy(update={"data": data}).model_dump())

    @classmethod
    def of_run(cls, run: Run) -> Self | None:
        """Return the source in the manifest of a finished run; None if it does not record one."""
        try:
            return cls.model_validate(run.info.get("source"), strict=True)
        except ValidationError:
            return None

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Read the source of an unfinished run.

        Raises:
            TrainingError: If it is missing or damaged.
        """
        path = run_dir / CHECKPOINT / SOURCE
        hint = "name the images that it was trained on: --data SOURCE (and --subset, if it was used)"
        try:
            return cls.model_validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            raise TrainingError(f"{run_dir} does not record the source of its images", hint) from None
        except (OSError, ValidationError) as error:
            check_version(run_dir)
            raise TrainingError(f"can't read the source of the images from {path}", hint) from error
