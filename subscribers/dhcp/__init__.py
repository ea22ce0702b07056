"""DHCP lease files → leases."""
