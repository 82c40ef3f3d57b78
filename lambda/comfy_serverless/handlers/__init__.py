"""Thin AWS entry points: they translate events to jobs and back, and decide nothing."""
