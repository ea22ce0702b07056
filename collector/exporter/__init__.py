"""An exporter of our own: flows → NetFlow v5, v9, IPFIX or sFlow v5 datagrams, with loss on purpose and a manifest."""
