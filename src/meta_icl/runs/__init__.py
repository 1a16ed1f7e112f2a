"""Run folders: configuration, provenance, metrics, checkpoints, results and claims, safe against kills and mix-ups."""

from meta_icl.runs.asked import LeftOut, asked, drawn, those_there
from meta_icl.runs.claims import Check, Claim, Converged, Rule, absolute, at_least, at_most, is_true, relative, within
from meta_icl.runs.config import config_hash
from meta_icl.runs.files import read_json, write_atomically, write_json
from meta_icl.runs.interrupts import graceful_interrupts, stop_requested
from meta_icl.runs.lock import Locked
from meta_icl.runs.query import RunInfo, Table, collect, default_root, find_run, list_runs, query
from meta_icl.runs.reuse import reuse_parts, reused
from meta_icl.runs.run import Run
from meta_icl.runs.verify import Finding, verify

__all__ = [
    "Check",
    "Claim",
    "Converged",
    "Finding",
    "LeftOut",
    "Locked",
    "Rule",
    "Run",
    "RunInfo",
    "Table",
    "absolute",
    "asked",
    "at_least",
    "at_most",
    "collect",
    "config_hash",
    "default_root",
    "drawn",
    "find_run",
    "graceful_interrupts",
    "is_true",
    "list_runs",
    "query",
    "read_json",
    "relative",
    "reuse_parts",
    "reused",
    "stop_requested",
    "those_there",
    "verify",
    "within",
    "write_atomically",
    "write_json",
]
