"""The cluster's certificate authority: issuing, join tokens, who a peer is, TLS contexts, its HTTP routes.

A certificate says who a host is (CN node id, OU role, O cluster id); its role
decides what it may call. The signing key lives in the managers' replicated state
and nowhere else.
"""
