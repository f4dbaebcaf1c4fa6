"""Two-level problems behind counting oracles (Kwon et al. 2024, arXiv 2309.01753)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.errors import Issue, refuse
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    import numpy as np

    from sparselab.estimation.problems.levels.environment import Environment
    from sparselab.estimation.problems.levels.instance import Instance

TRAIN, TEST = "mnist/train.parquet", "mnist/test.parquet"
IMAGES, CLASSES, SIDE = 60_000, 10, 28
PROBES = 8  # points at which the penalty function of a quadratic is compared with psi


class OracleOptions(AnyOptions):
    """Options of every two-level problem: how long a solver may ask."""

    eps: float | None = Field(
        gt=0, description="stop when the root mean square of the true hypergradient is at most this; null: never"
    )
    budget: int | None = Field(ge=1, description="most oracle calls, or null: no limit")


class NoisyOptions(OracleOptions):
    """How wrong a gradient is."""

    noise: float = Field(ge=0, description="standard deviation of a coordinate of a gradient, at least 0")
    roughness: float | None = Field(
        ge=0,
        description="change of a sample's error with the point, at least 0; null: independent errors at two points",
    )


class TwoLevel(Problem):
    """Base: subclasses make the instance.

    ``constrained`` whether the lower level is; ``curved`` whether it is strongly convex: what implicit differentiation needs.
    """

    Options: ClassVar[type[OracleOptions]] = OracleOptions
    draws = "two-level problem"
    constrained: ClassVar[bool] = False
    curved: ClassVar[bool] = True
    options: Any

    def dimensions(self) -> tuple[int, int]:
        """(of x, of y). No numpy."""
        raise NotImplementedError

    def size(self) -> int:
        return sum(self.dimensions())

    def describe(self) -> str:
        p, q = self.dimensions()
        noise = getattr(self.options, "noise", None)
        return f"{self.name}, x in {p:,} dimensions, y in {q:,}" + (f", noise {noise:g}" if noise is not None else "")

    def instance(self, *place: object) -> Instance:
        """The functions. ``place`` decides them wholly."""
        raise NotImplementedError

    def draw(self, *place: object) -> Environment:
        import numpy as np

        from sparselab.estimation.problems.levels.environment import Environment

        o = self.options
        rng = np.random.default_rng(derive_seed("oracle", *place))
        noise, roughness = getattr(o, "noise", 0.0), getattr(o, "roughness", 0.0)
        return Environment(self.instance(*place), rng, noise, roughness, o.eps, o.budget)


class QuadraticOptions(NoisyOptions):
    """A quadratic of some size and conditioning."""

    d: int = Field(ge=1, le=2000, description="dimensions of x and of y, 1 to 2000")
    mu: float = Field(
        gt=0, le=1, description="smallest positive eigenvalue of the lower level, in (0, 1]; the largest is 1"
    )
    spread: float = Field(ge=1, description="largest over smallest singular value of B, at least 1")
    ridge: float = Field(ge=0, description="weight of |x|²/2 in the upper level, at least 0")


class QuadraticProblem(TwoLevel):
    """Options of the quadratics: f = |y - c|²/2 + ridge |x|²/2, g = (y - Bx)ᵀH(y - Bx)/2, eigenvalues of H from mu to 1."""

    Options: ClassVar[type[QuadraticOptions]] = QuadraticOptions

    def dimensions(self) -> tuple[int, int]:
        return self.options.d, self.options.d

    def parts(self, *place: object, kernel: int = 0) -> tuple[np.ndarray, ...]:
        """(basis, eigenvalues, B, c, x0, probes) of an H with a kernel of some dimensions."""
        import numpy as np

        o = self.options
        rng = np.random.default_rng(derive_seed("two-level quadratic", *place))

        def rotation() -> np.ndarray:
            return np.linalg.qr(rng.normal(size=(o.d, o.d)))[0]

        positive = o.mu ** np.linspace(1, 0, o.d - kernel)
        matrix = (rotation() * o.spread ** -np.linspace(0, 1, o.d)) @ rotation()
        centre = rng.normal(size=o.d) / np.sqrt(o.d)
        basis, x0, probes = rotation(), rng.normal(size=o.d) / np.sqrt(o.d), rng.normal(size=(PROBES, o.d))
        return basis, np.concatenate([np.zeros(kernel), positive]), matrix, centre, x0, probes


@PROBLEMS.register("bilevel_quadratic")
class QuadraticLevels(QuadraticProblem):
    """A strongly convex lower level: its minimiser is Bx."""

    def instance(self, *place: object) -> Instance:
        from sparselab.estimation.problems.levels.quadratic import Quadratic

        basis, positive, matrix, centre, x0, probes = self.parts(*place)
        return Quadratic(basis, positive, matrix, centre, x0, probes, self.options.ridge)


@PROBLEMS.register("bilevel_pl")
class FlatLevels(QuadraticProblem):
    """A lower level with a kernel: it has many minimisers, and grows quadratically away from them (PL, not strongly convex)."""

    class Options(QuadraticOptions):
        kernel: int = Field(ge=1, description="dimensions of the lower level's kernel, at least 1")

    curved = False

    def issues(self) -> list[Issue]:
        o = self.options
        if o.kernel < o.d:
            return []
        where = f"problem.kernel={o.kernel}"
        return [Issue(where, f"nothing is left of {o.d} dimensions", f"write at most {o.d - 1}, or a larger problem.d")]

    def instance(self, *place: object) -> Instance:
        from sparselab.estimation.problems.levels.quadratic import Quadratic

        basis, positive, matrix, centre, x0, probes = self.parts(*place, kernel=self.options.kernel)
        return Quadratic(basis, positive, matrix, centre, x0, probes, self.options.ridge)


@PROBLEMS.register("bilevel_box")
class BoxLevels(QuadraticProblem):
    """A lower level in the box [-1, 1]^d, with H diagonal: its minimiser is Bx, cut to the box.

    The penalty function is compared with psi where every coordinate of Bx is at least 0.3 away from the box's faces: on
    them psi has no gradient. About a third of the coordinates lie outside.
    """

    constrained = True

    def instance(self, *place: object) -> Instance:
        import numpy as np

        from sparselab.estimation.problems.levels.quadratic import Box

        _, eigenvalues, matrix, centre, x0, probes = self.parts(*place)
        rng = np.random.default_rng(derive_seed("two-level box", *place))
        inside, outside = rng.uniform(0, 0.7, probes.shape), rng.uniform(1.3, 2, probes.shape)
        sizes = np.where(rng.uniform(size=probes.shape) < 1 / 3, outside, inside) * np.sign(probes)
        return Box(eigenvalues, matrix, centre, x0, np.linalg.solve(matrix, sizes.T).T, self.options.ridge)


@PROBLEMS.register("bilevel_jump")
class JumpLevels(TwoLevel):
    """The counterexample f = x² + y², g = xy on [-1, 1]²: near 0 the penalty function does not come close to psi."""

    Options = NoisyOptions
    constrained, curved, random = True, False, False

    def dimensions(self) -> tuple[int, int]:
        return 1, 1

    def instance(self, *place: object) -> Instance:
        import numpy as np

        from sparselab.estimation.problems.levels.quadratic import Jump

        sizes = np.geomspace(1e-4, 1, 17)
        return Jump(np.array([0.5]), np.concatenate([sizes, -sizes])[:, None])


@PROBLEMS.register("hyperclean")
class HyperClean(TwoLevel):
    """MNIST with wrong labels: a weight for every training example, learned on clean validation images.

    Needs mnist/train.parquet and mnist/test.parquet in ``data_dir``.
    """

    class Options(OracleOptions):
        train: int = Field(ge=20, description="training images with some wrong labels, at least 20")
        validation: int = Field(ge=10, description="clean images of the upper level, at least 10")
        test: int = Field(ge=10, le=10_000, description="images of the test set, 10 to 10,000")
        pool: Literal[1, 2, 4] = Field(description="squares of so many pixels are averaged to one: 1, 2 or 4")
        wrong: float = Field(ge=0, le=1, description="share of wrong labels, in [0, 1]")
        reg: float = Field(gt=0, description="weight of |y|²/2 in the lower level, above 0")
        start: Literal["even", "truth"] = Field(
            description="even: all weights 1/2; truth: those of wrong labels near 0"
        )

    options: Options

    def issues(self) -> list[Issue]:
        o = self.options
        if o.train + o.validation <= IMAGES:
            return []
        where = f"problem.train={o.train} problem.validation={o.validation}"
        return [Issue(where, f"MNIST has {IMAGES:,} training images", f"write a sum of at most {IMAGES}")]

    def dimensions(self) -> tuple[int, int]:
        return self.options.train, ((SIDE // self.options.pool) ** 2 + 1) * CLASSES

    def files(self) -> dict[str, str]:
        from sparselab.inputs.data.dataset import LocalCopies

        copies = LocalCopies(self.data_dir)
        found = {name: copies.local(name) for name in (TRAIN, TEST)}
        if missing := [name for name, path in found.items() if path is None]:
            refuse(
                "problem=hyperclean", "no local copy", f"put {' and '.join(missing)} in data_dir, or set SPARSELAB_DATA"
            )
        return {"train": str(found[TRAIN]), "test": str(found[TEST])}

    def instance(self, *place: object) -> Instance:
        import numpy as np

        from sparselab.estimation.problems.levels.cleaning import Cleaning, Split, pollute

        o, files = self.options, self.files()
        rng = np.random.default_rng(derive_seed("hyperclean", *place))
        chosen = rng.permutation(IMAGES)[: o.train + o.validation]
        images, labels = _mnist(files["train"], chosen, o.pool)
        wrong = pollute(labels[: o.train], o.wrong, CLASSES, rng)
        shown = _mnist(files["test"], rng.permutation(10_000)[: o.test], o.pool)
        return Cleaning(
            Split.of(images[: o.train], wrong),
            Split.of(images[o.train :], labels[o.train :]),
            Split.of(*shown),
            wrong == labels[: o.train],
            CLASSES,
            o.reg,
            o.start == "truth",
        )


def _mnist(path: str, chosen: np.ndarray, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """(images (n, side, side) of 0 to 255, labels (n,)) of some rows of a parquet file of encoded images."""
    import io

    import numpy as np
    import pyarrow.parquet as parquet
    from PIL import Image

    table = parquet.read_table(path, columns=["image", "label"]).take(chosen)
    pictures = [np.asarray(Image.open(io.BytesIO(item["bytes"]))) for item in table["image"].to_pylist()]
    images, side = np.array(pictures, dtype=np.float64), SIDE // pool
    return images.reshape(-1, side, pool, side, pool).mean((2, 4)), np.array(table["label"].to_pylist())
