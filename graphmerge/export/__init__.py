"""Export: ONNX files, checked against the model that they came from."""

from graphmerge.export.onnx import OnnxReport, export_onnx

__all__ = ["OnnxReport", "export_onnx"]
