"""Tests of real processes: endings, shutdowns, outages, the command line, pages, official clients."""
