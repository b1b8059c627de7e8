"""Foresight: forward runs, intervals, reasons."""
