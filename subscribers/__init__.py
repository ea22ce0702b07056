"""Accounts, contracts, services and leases (addresses over time): whose packet is it?"""
