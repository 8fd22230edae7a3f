"""A server under attack: thousands of generated bad inputs beside clients who only want to talk."""
