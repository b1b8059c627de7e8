"""Tuneforge: fine-tuning as a service that other backend services call."""
