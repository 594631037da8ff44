"""`shoal doctor`: what this host lacks of what Shoal stands on.

`facts` are the nouns, `gather` and `probes` the I/O, `checks` the judgement (pure),
`findings` what they come to. docs/doctor.md says what is looked at.
"""
