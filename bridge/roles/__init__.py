"""Composition: which parts make each role; `bridge.runtime` makes processes of them."""
