"""What a user names: a model, its example inputs, its weights, its data."""

from graphmerge.sources.data import Batches, batches_of, check_data_file, load_data
from graphmerge.sources.factory import import_object, is_import
from graphmerge.sources.inputs import example_inputs, parse_dtype, parse_input
from graphmerge.sources.loss import load_loss
from graphmerge.sources.model import build_model, build_on_meta, pick_device

__all__ = [
    "Batches",
    "batches_of",
    "build_model",
    "build_on_meta",
    "check_data_file",
    "example_inputs",
    "import_object",
    "is_import",
    "load_data",
    "load_loss",
    "parse_dtype",
    "parse_input",
    "pick_device",
]
