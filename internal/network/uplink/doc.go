// Package uplink is the network helper, the role `isled network`: the name server
// of user-defined networks and, for an ordinary user, the way out of the user's
// own network namespace. Package network says what it is told and by whom.
//
// # What it hides
//
// How packets become sockets of the host and back, without a device of the host's
// and without any privilege there.
//
// # Theory
//
//	containers ─ bridges ─ uplink0 ═ uplink1 ◀─ packet socket ─▶ gVisor's network stack
//	                                                     │ TCP, UDP, ping
//	                                                     ▼
//	                                            sockets of the host's network
//
// The packet socket works where /dev/net/tun is closed to users. It carries the
// kernel's own offloads (PACKET_VNET_HDR): trains of segments up to 64 KB pass as
// one frame, and checksums are not computed between two ends of one machine.
//
// Out: the stack takes every address for its own. A new connection is made with
// the host first and accepted only then, so a closed port is refused as it would
// be without us; nothing here knows which addresses exist.
//
// In: the sockets of published ports were bound by the container's monitor. The
// stack connects to the container from the client's own address and port, which
// is possible since it is all there is behind the container's default route: the
// container sees who its client is, over TCP and UDP. A client on the host's
// loopback, which would mean the container itself, appears as 169.254.1.2.
//
// 169.254.1.2 is the host, by the address that it has in its own network; never
// its loopback. 169.254.1.3 answers DNS from the servers that the host's
// resolv.conf names at that moment.
//
// # Invariants
//
// Nothing that comes from a container leads to a loopback, unspecified or
// multicast address of the host.
//
// The process holds nothing that is not told again when it is killed: each monitor
// sees its connection end, and the first one starts the helper anew.
//
// See packet(7), network_namespaces(7), icmp(7), RFC 1035, RFC 6761.
package uplink
