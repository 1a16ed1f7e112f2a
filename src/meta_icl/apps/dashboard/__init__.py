"""The dashboard: runs while they train, the claims of all papers, and a playground; served on this machine alone."""

from meta_icl.apps.dashboard.app import Settings, page, serve

__all__ = ["Settings", "page", "serve"]
