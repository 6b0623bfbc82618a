"""The four stages of DeepSeek-R1, each a run of its own: what each is given, what is measured of each, the report."""
