"""Root file systems: layers unpacked on disk, and one writable mount for each container.

`rootfs.RootFSStore` is what containers use, `driver.StorageDriver` what a storage
driver offers, `overlay2.Overlay2` the one there is. Nothing here knows image names.
"""
