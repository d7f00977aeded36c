"""Pushing blobs: upload methods, upload sessions, and what a push does next.

pusher        one push: asks what `state` says, and does with session and host what came of it
state         what comes after each answer, refusal and break: one table
failures      which event of that table an error is, and how it is explained
sender        one try, from opening a session to the commit
methods       the requests of each upload method        requests  all requests of a push
sessions      those that no push is using               location  where a session goes on
request_size  size_learner        how large a request may be, and what teaches that
"""
