"""Bundles that a registry answers from as they are: nothing is unpacked, and nothing is written.

content       the bundles opened: which repository holds what, found from their lists and manifests alone
closures      what belongs to an image: its manifests and blobs, and what refers to them
names         the names of their repositories, and those by which clients may ask for them
blobs         their content, checked while it is sent for the first time
"""
