"""Reading, checking and writing of models: files, external data, static shapes.  Knows no pruning."""

from onnxprune.model.external import ExternalStyle
from onnxprune.model.read import Model, load
from onnxprune.model.write import SavedFile, save

__all__ = ["ExternalStyle", "Model", "SavedFile", "load", "save"]
