"""Conformance: what every data plane must do, with real TUNs between two namespaces."""
