"""A page that codes and decodes in the browser, and the server of its files."""
