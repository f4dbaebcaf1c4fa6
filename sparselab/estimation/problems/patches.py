"""Patches of whitened photographs (Rentzeperis et al. 2023, arXiv 2301.10002)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.core.memo import once
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from sparselab.estimation.problems.images.sample import PatchSample


@PROBLEMS.register("patches")
class Patches(Problem):
    """Random patches of the photographs in one folder to learn from, and of those in another to be scored on.

    Pictures are standardised each, filtered, and divided by one number, which the first folder's pictures decide.
    """

    class Options(AnyOptions):
        train: str = Field(min_length=1, description="a folder of pictures, in data_dir or by its path")
        test: str = Field(min_length=1, description="a folder of other pictures")
        patch: int = Field(ge=4, le=64, description="side of a patch in pixels, 4 to 64")
        patches: int = Field(ge=1, description="patches to learn from, at least 1")
        held_out: int = Field(ge=1, description="patches to be scored on, at least 1")
        whiten: Literal["olshausen", "none"] = Field(description="olshausen or none")
        f0: float = Field(gt=0, description="the filter's corner in cycles per pixel, above 0")
        frequencies: Literal["isotropic", "index"] = Field(description="isotropic or index (the released code)")
        variance: float = Field(gt=0, description="mean variance of the pictures after whitening, above 0")
        margin: int = Field(ge=0, description="pixels at the edges of a picture that no patch has, at least 0")
        gabor_cut: float = Field(gt=0, lt=1, description="explained share from which a unit is Gabor-like, in (0, 1)")

    draws = "set of patches"
    options: Options

    def files(self) -> dict[str, str]:
        folders = {which: self._folder(which) for which in ("train", "test")}
        if folders["train"].resolve() == folders["test"].resolve():
            where = f"problem.test={self.options.test}"
            refuse(where, "has the pictures that the units are learnt from", "name another folder")
        return {which: str(folder) for which, folder in folders.items()}

    def places(self) -> tuple[str, ...]:
        return ("train", "test")

    def size(self) -> int:
        return self.options.patch**2

    def describe(self) -> str:
        o = self.options
        return f"{o.patches:,} patches of {o.patch} x {o.patch} pixels of {o.train}, scored on {o.test}"

    def _folder(self, which: str) -> Path:
        from pathlib import Path

        from sparselab.inputs.data.dataset import LocalCopies

        typed = getattr(self.options, which)
        path = LocalCopies(self.data_dir).local(typed) or Path(typed).expanduser()
        where = f"problem.{which}={typed}"
        if not path.exists():
            refuse(where, "no local copy", "put the pictures there in data_dir, set SPARSELAB_DATA, or name a folder")
        if not path.is_dir():
            refuse(where, "is not a folder", "name a folder of pictures")
        once(("pictures", path, self._least()), lambda: _look(path, where, self._least()))
        return path

    def _least(self) -> int:
        return self.options.patch + 2 * self.options.margin

    def draw(self, *place: object) -> PatchSample:
        import numpy as np

        from sparselab.estimation.problems.images import whiten
        from sparselab.estimation.problems.images.sample import PatchSample

        o = self.options
        pictures = {}
        for which in ("train", "test"):
            folder = self._folder(which)
            try:
                stamp = whiten.stamp_of(folder)
                pictures[which] = whiten.load(folder, stamp, o.whiten, o.f0, o.frequencies)
            except ValueError as error:
                refuse(f"problem.{which}", str(error), "correct the file, or take it out of the folder")
        scale = np.sqrt(o.variance) / whiten.amplitude(pictures["train"])

        def cut(which: str, count: int) -> np.ndarray:
            rng = np.random.default_rng(derive_seed("patches", which, *place))
            return scale * whiten.patches(pictures[which], o.patch, count, o.margin, rng)

        return PatchSample(cut("train", o.patches), cut("test", o.held_out), o.patch, o.gabor_cut)


def _look(folder: Path, where: str, least: int) -> None:
    """Refuse a folder without pictures, with a file that is none, or with a picture of less than ``least`` pixels."""
    from sparselab.estimation.problems.images import SUFFIXES
    from sparselab.estimation.problems.images.whiten import pictures_in, size_of

    found = pictures_in(folder)
    if not found:
        refuse(where, "holds no picture", f"put files into it that end with {', '.join(SUFFIXES)}")
    for path in found:
        try:
            height, width = size_of(path)
        except ValueError as error:
            refuse(where, str(error), "correct the file, or take it out of the folder")
        if min(height, width) < least:
            problem = f"{path.name} has {height} x {width} pixels, and patch + 2 margin is {least}"
            refuse(where, problem, "write a smaller problem.patch or problem.margin")
