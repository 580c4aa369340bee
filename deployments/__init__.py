"""Deployments: what runs where, and how it is brought up."""
