"""ROLE api: endpoints, deliveries, jobs and keys over HTTP, and events as they happen.

It writes the registry, asks workers and forwarders for things by publishing records, and answers from views in memory
that topics are followed into.
"""
