"""Who may do what: nobody is asked, htpasswd, or tokens of another server."""
