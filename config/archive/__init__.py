"""The archive: what was said and answered, in SQL, for as long as it is kept. Its tables, and who reads them."""
