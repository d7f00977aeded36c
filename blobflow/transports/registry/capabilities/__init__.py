"""Capabilities: what a registry can do, known by its name or learned from its answers.

profiles           known by the name of the host; the order of upload methods; what was learned of them
host_capabilities  all that one host has shown of itself, by what it is about:
  head_support  referrers_support  range_support  stale_caches  manifests_ahead
stream_growth  peak_rate    how many streams are worth having at a host, and what they moved
"""
