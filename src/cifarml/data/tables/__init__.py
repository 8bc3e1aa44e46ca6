"""Sources whose labels are in a table: CSV files beside images, Parquet files, NumPy arrays."""
