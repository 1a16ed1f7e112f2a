"""The networks of the papers, as functions of a few sizes: each says in a sentence what makes it that one."""

from meta_icl.models.published import classifiers, language, regression, weight_updates
from meta_icl.models.published.classifiers import *
from meta_icl.models.published.language import *
from meta_icl.models.published.regression import *
from meta_icl.models.published.weight_updates import *

# The names of all networks, the functions among what the files export.
NETWORKS = tuple(
    sorted(n for file in (classifiers, language, regression, weight_updates) for n in file.__all__ if n.islower())
)

__all__ = ["NETWORKS"]
__all__ += classifiers.__all__
__all__ += language.__all__
__all__ += regression.__all__
__all__ += weight_updates.__all__
