"""Actors and the audit trail of every change."""
