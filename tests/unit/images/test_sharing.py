"""The manifest by which other hosts get an image that came with none."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shoal.engine.images.blobs import Blobs
from shoal.engine.images.distribution.manifests import OCI_LAYER, OCI_LAYER_GZIP, parse_manifest
from shoal.engine.images.index import ImageRecord
from shoal.engine.images.sharing import describe


def test_the_same_blobs_make_the_same_manifest_everywhere(tmp_path: Path) -> None:
    import gzip

    plain, packed = b"plain" * 200, gzip.compress(b"layer" * 200, mtime=0)
    manifests = []
    for host in ("one", "other"):
        blobs = Blobs(tmp_path / host)
        record = ImageRecord(layers=(blobs.put(plain), blobs.put(packed)))
        manifests.append(describe(blobs, blobs.put(b'{"config": 1}'), record))
    assert manifests[0].raw == manifests[1].raw
    read = parse_manifest(manifests[0].raw, expected=manifests[0].digest)
    assert [layer.media_type for layer in read.layers] == [OCI_LAYER, OCI_LAYER_GZIP]
    assert [layer.size for layer in read.layers] == [len(plain), len(packed)]
    assert read.layers[0].digest == "sha256:" + hashlib.sha256(plain).hexdigest()
