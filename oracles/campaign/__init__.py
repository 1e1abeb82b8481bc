"""Campaigns: searches of many layers, shared by any number of workers on any number of machines."""
