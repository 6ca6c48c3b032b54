"""Kafka: connection settings, topics, the ledger's transactions, and the feed of requests."""
