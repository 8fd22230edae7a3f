"""HTTP: the routes and what is around them."""
