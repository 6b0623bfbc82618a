"""Requests in, ids out; never sees text: scheduler, pages, sampler, runners."""
