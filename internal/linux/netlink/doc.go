// Package netlink talks to the kernel about network devices, addresses, routes
// and packet filter rules: rtnetlink and nfnetlink.
//
// It hides the encoding of messages and attributes, acknowledgements and their
// errors, dumps that have to be taken again, and sockets that belong to another
// network namespace.
//
// A [Batch] is any number of requests in one buffer. [Conn.Do] sends it with one
// system call and reads one acknowledgement for the last request; the kernel
// answers the others only when they fail. So a container's device costs two
// system calls, not ten:
//
//	b.Begin(RTM_NEWLINK, …) … b.Begin(RTM_NEWADDR, …) …
//	conn.Do(b)  ──sendto──▶ kernel handles them in order
//	            ◀─recvfrom─ error of request 1? of 2? … acknowledgement of the last
//
// A failed request does not keep the kernel from handling the next one.
//
// A socket belongs for ever to the namespace it was made in. [DialIn] enters a
// namespace on the caller's thread only for the socket(2) call.
//
// No package that costs anything at start-up is used (net, net/netip): this is
// on the way of every container's start.
//
// See netlink(7), rtnetlink(7), veth(4), network_namespaces(7), and nft(8) for
// what the tables mean.
package netlink
