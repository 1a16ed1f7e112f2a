"""Reports: one self-contained HTML file per run, or for several runs side by side."""

from meta_icl.apps.report.page import Reported, write_comparison, write_report

__all__ = ["Reported", "write_comparison", "write_report"]
