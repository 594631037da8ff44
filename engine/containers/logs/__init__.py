"""The logs of containers: their lines, read and followed, put aside when they have grown (docs/adr/0005)."""
