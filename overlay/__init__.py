"""One host's networks: bridges, overlays, names, published ports, service load balancing.

`networks.Networks` is what the daemon uses. It decides with pure modules
(`plan`, `ipam`, `hosttable`, `sandboxtable`, `names`, `files`) and acts through
`kernel`, `netlink`, `nft`, `conntrack` and `dns`. Nothing here knows of containers beyond
their ids and names, or of managers.
"""
