"""File primitives, the home folder, the journal's files, SQL engine, migrations, DuckDB generations."""
