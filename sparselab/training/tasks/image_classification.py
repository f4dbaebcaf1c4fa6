"""Image classification [no torch at import]."""

from __future__ import annotations

from sparselab.core.data_types import Classes, Images
from sparselab.training.tasks.classification import Classification
from sparselab.training.tasks.task import TASKS


@TASKS.register("image_classification")
class ImageClassification(Classification):
    """One class of each image."""

    needs = (Images, Classes)
