"""The little we use of each AWS service, and how its clients are built. No job in here."""

from __future__ import annotations
