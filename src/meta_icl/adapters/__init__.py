"""Models of other frameworks as predictors; each framework is imported when one of its models is used."""
