"""Reference architectures at small size: what the symmetry engine is checked on.

Sizes that meet in one network differ from one another wherever its constructor permits (batch 3,
sequence 7 or 11, heads 4 of 8), so that no dimension can be taken for another. Importing this
package imports neither torchvision nor transformers.
"""

from models_zoo.architectures import language, plain, vision
from models_zoo.architectures.table import Architecture, Inputs

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a for a in (*plain.ARCHITECTURES, *vision.ARCHITECTURES, *language.ARCHITECTURES)
}
"""Every architecture by name."""

__all__ = ["ARCHITECTURES", "Architecture", "Inputs"]
