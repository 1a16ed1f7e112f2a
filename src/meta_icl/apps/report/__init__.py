"""Reports: one self-contained HTML file per run, or for several runs side by side."""

from meta_icl.apps.report.measured import of_comparison, of_training
from meta_icl.apps.report.page import Reported, write_comparison, write_report
from meta_icl.apps.report.story import Story
from meta_icl.apps.report.tables import Table

__all__ = ["Reported", "Story", "Table", "of_comparison", "of_training", "write_comparison", "write_report"]
