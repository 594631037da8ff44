"""Root file systems: layers unpacked on disk, and one writable mount for each container.

`rootfs.RootFSStore` is what containers use, `driver.StorageDriver` what a storage
driver offers, `overlay2.Overlay2` the usual one and `vfs.Vfs` the one where that
cannot be (`choose`). Nothing here knows image names.
"""
