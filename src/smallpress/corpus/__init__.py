"""Documents in: text, code and conversations; filtered, without duplicates, as shards of tokens and rows of them."""
