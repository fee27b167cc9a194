"""Stand-ins for time, transports, peers and proxies. Virtual time and real sockets never meet in one test."""
