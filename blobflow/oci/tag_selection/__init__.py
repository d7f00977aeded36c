"""Tag selection: rules, regular expressions, versions and version ranges. Pure."""
