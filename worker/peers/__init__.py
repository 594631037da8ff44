"""Images between the hosts of a swarm, with no registry.

    held.py      what this host tells the managers that it has
    sharing.py   gives blobs to other hosts, by digest
    fanout.py    to whom: a blob is given to few, who give it on
    taking.py    takes an image from other hosts: a source for the engine's pulls
    choice.py    which of them is asked next
    coming.py    what is being taken just now, for those who ask for it already
    bringing.py  all of it together: the image of a task, from here, other hosts, or its registry
"""
