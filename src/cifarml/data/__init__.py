"""Pictures and labels: where they come from and how they become a Dataset."""

from cifarml.data.archive import extract_archive
from cifarml.data.check import SourceCheck, check_dataset, check_source
from cifarml.data.dataset import BadPicture, Dataset, DatasetSplits
from cifarml.data.drawn import draw_dataset
from cifarml.data.load import load_dataset

__all__ = [
    "BadPicture",
    "Dataset",
    "DatasetSplits",
    "SourceCheck",
    "check_dataset",
    "check_source",
    "draw_dataset",
    "extract_archive",
    "load_dataset",
]
