"""Finding and tending: which tags and repositories there are, which are wanted, which are too many.

    naming    tags, repositories, one more tag for what is there
    removing  one tag or manifest
    finding   rules → the tags that they choose now         search   what that is about, as values
    looking   what the tags of a repository name, and what its indexes list
    surplus   what a mirror has and its selection does not: the decision, pure
    clearing  the same, done

What is asked here is asked of the registry itself, never of a mirror of it, which lags behind. Composition,
as `mirror` is: here too the transports are met.
"""
