"""Tags: listing and finding them, and removing the ones that a mirror should not have.

    names    lists tags and repositories, adds further tags to a manifest
    remove   removes one tag or manifest
    find     rules → the tags that they choose now         search   a search and its result, as values
    inspect  what the tags of a repository name, and what its indexes list
    extra    which tags a mirror has and its selection does not: the decision, pure
    prune    removes those

All questions go to the registry itself, never to a mirror of it, which may be out of date.
"""
