"""/containers and /exec: routes, the bodies they take, the forms in which containers are shown.

    wire        bodies as clients send them
    config      body → ContainerConfig       (with `limits`, `mounts`, `networking`: the parts of a HostConfig)
    host        body → HostConfig
    inspect     Container → GET /containers/{id}/json
    listing     Container → a line of GET /containers/json, and its filters
    routes      what changes containers or tells about them
    streams     attach, logs, wait, stats
    execs       exec in a container

Everything but the last three is pure.
"""
