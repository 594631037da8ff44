"""Volumes: their names, records and users (`volumes`), and the drivers that keep their content.

Nothing here knows containers but by the ids of who holds a volume.
"""
