"""Judge subjects that are not trusted: in processes that hold nothing of the judge, by what they answer alone."""
