"""Our own exporter: flows → datagrams of NetFlow v5, v9, IPFIX and sFlow v5 → a network that loses some → real UDP."""
