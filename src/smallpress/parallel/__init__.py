"""One model trained by many processes: sharded weights, experts apart, pipelines, slow links."""
