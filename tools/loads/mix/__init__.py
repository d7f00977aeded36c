"""What a registry meets in its life, with the answer that each request deserves.

client        one client with repositories of its own: it knows what is there and what must be answered
pushing       uploads of every form, mounts, images, indexes, referrers, and deletions
pulling       what docker, containerd, crawlers and people read
bad_requests  what doesn't exist, what makes no sense, and connections that break
actions       all of that with how often it comes
"""
