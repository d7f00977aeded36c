"""Tags: which tags and repositories there are, which are wanted, and which are too many.

    names    tags, repositories, one more tag for what is there
    remove   one tag or manifest
    find     rules → the tags that they choose now         search   what that is about, as values
    inspect  what the tags of a repository name, and what its indexes list
    extra    which tags a mirror has and its selection does not: the decision, pure
    prune    removes them

What is asked here is asked of the registry itself, never of a mirror of it, which lags behind.
"""
