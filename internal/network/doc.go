// Package network connects containers: networks and their records, addresses,
// devices, packet filter rules and published ports.
//
// # What it hides
//
// Which addresses are free, how a container's end of a network comes into its
// namespace, what the host's packet filter has to hold for that, and what has to
// be put right because somebody else changed it.
//
// # Theory
//
//	Prepare   before the fork: addresses leased, host ports bound, so that what
//	          cannot work fails early and /etc/hosts can be written
//	Connect   while the child mounts: bridge and rules checked, veth pair born with
//	          its peer in the child's namespace, address and route set there
//	Detach    after the end: rules of its ports and leases removed; the devices go
//	          with the namespace
//
// There is no daemon: every start checks what it relies on.
//
//	container          host (rootless: the user's own network namespace)
//	eth0 ──veth──▶ isle0, a bridge with the gateway's address ──▶ routes, NAT
//
// Everything in the packet filter is in one table of isle's own, "inet isle".
// The rules are the same on every machine; what varies is in its sets and maps:
//
//	bridges   devices of isle's networks       internal  those that lead nowhere else
//	masq      those whose traffic is masked    same      pairs of a device and itself
//	any4 any6 published on all addresses       addr4 addr6 published on one
//	self4 self6 containers with published ports, for their own use of them
//	uplink    an ordinary user's way out, whose packets are let in
//
// A start compares the number of rules with what it shall be, and looks for its
// bridge in the set. If rules are missing (nft flush ruleset, a reload of a
// firewall that flushes all) the table is made anew in one transaction, with the
// ports of all containers that live. Monitors of running containers listen for
// removals and do the same (watch.go).
//
// Another store of root than the usual one has a table and a bridge of its own,
// named by its path (storeNames).
//
// # Files
//
//	DATA/networks/.lock              held while a network is made or removed, and while the table or a published port changes
//	DATA/networks/NAME/network.json  [Network]
//	DATA/networks/NAME/addr/ADDRESS  a lease: the id of the container
//	DATA/networks/NAME/addr/.last    the last address given; a hint
//	RUN/net/ns  sock  log            an ordinary user's namespace, the helper's socket and its last words
//	RUN/net/ID.json                  what a container with published ports has (container.Network)
//	RUN/net/ID.ns                    its namespace, mounted, for pasta or slirp4netns (outside.go)
//
// A lease is believed while its container's lock is held. It is made by exclusive
// creation, so two containers never have the same address, without a lock.
//
// # Invariants
//
// Addresses are given in turn, not lowest first: the namespace of a container
// that has just ended answers for its address until the kernel has cleaned up.
//
// Nothing outside the table "inet isle", the devices of its networks and the
// sysctls that [Warnings] name is ever changed.
//
// See veth(4), bridge(8), nft(8), ip-sysctl (kernel documentation), RFC 4193.
package network
