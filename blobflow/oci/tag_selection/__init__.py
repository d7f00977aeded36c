"""Which tags of a repository are wanted: rules, regular expressions, versions and ranges of them. Pure."""
