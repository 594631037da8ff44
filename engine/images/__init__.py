"""The images of one host: a content-addressed store, and how images get into it and out of it.

`images.Images` is the facade. Nothing here runs containers or knows of clusters.
"""
