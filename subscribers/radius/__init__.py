"""RADIUS accounting: who is online with which address, as the access servers tell it → sessions → leases."""
