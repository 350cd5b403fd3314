"""The cloud-init templates, as package data."""
