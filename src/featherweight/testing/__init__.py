"""Hypothesis strategies and laws: what every codec must keep, ours and yours.

A codec of your own is tested in two lines::

    def test_my_stage():
        check_stage(MyStage)

`check_stage` searches parameters in their bounds and arrays that the stage takes, as its ports and its ArgumentErrors
tell, and puts each to every one of `LAWS`. The strategies below make what they make from the declarations alone:
nothing here knows any codec by name.
"""

from featherweight.errors import MissingDependencyError

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as error:
    raise MissingDependencyError("hypothesis is needed: pip install 'featherweight[testing]'") from error

from featherweight.testing._arrays import arrays, layouts, shapes
from featherweight.testing._frames import Case, cases, frames, hostile_frames, recipes
from featherweight.testing._laws import LAWS, check_stage, only_our_errors, same
from featherweight.testing._mutation import Sealed, mutated
from featherweight.testing._stages import Sample, arrays_for, stages, takes

__all__ = [
    "LAWS",
    "Case",
    "Sample",
    "Sealed",
    "arrays",
    "arrays_for",
    "cases",
    "check_stage",
    "frames",
    "hostile_frames",
    "layouts",
    "mutated",
    "only_our_errors",
    "recipes",
    "same",
    "shapes",
    "stages",
    "takes",
]
