"""Exports a dataset to the layout of another tool; says what that layout has no place for."""

from labelstore.export.export import EXPORT_TARGETS, ExportSummary, export_dataset

__all__ = ["EXPORT_TARGETS", "ExportSummary", "export_dataset"]
