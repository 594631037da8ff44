"""Images from and to registries: the client side of the OCI distribution protocol.

    challenges, endpoints, manifests, retry, progress   pure
    registry    one repository of one registry: requests, authentication
    puller      an image from a registry into the store
    pusher      and back

`puller.Puller.pull` is what others call (the API, a build's FROM, a task).
"""
