"""A page that encodes and decodes in the browser, and the server of its files."""
