"""/containers and /exec: routes, the bodies they take, the forms in which containers are shown.

    wire                     bodies as clients send them
    config, host             body → ContainerConfig, HostConfig (`limits`, `mounts`, `networking`: parts of the latter)
    inspect, shownhost       Container → GET /containers/{id}/json
    listing                  Container → a line of GET /containers/json, and its filters
    stats, detachkeys        samples of what a container uses; the keys that let go of a terminal
    stdio                    the two ways between a client and a process
    routes, streams          what changes containers or tells about them; attach, logs, wait, stats
    execs, archives, commit  exec in a container; its files; an image of what it changed

Everything but the last three lines is pure.
"""
