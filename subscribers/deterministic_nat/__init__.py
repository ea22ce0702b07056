"""NAT by formula (RFC 7422): which outside ports an inside address has, without any log of the NAT."""
