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
//	containers ─ bridges ─ transparent sockets ◀── splice(2) ──▶ sockets of the host
//	                 │                                               ▲
//	                 └ uplink0 ═ uplink1 ◀─ packet socket ─▶ first packets, ping, DNS
//
// The user's own namespace lets its sockets have any address (steer.go). Connections
// (tcp.go) and flows of datagrams (udp.go) end at such sockets, and their bytes go
// on by splice and in trains, without being looked at. Only the first packet of
// each comes here, by a packet socket on the uplink, which works where /dev/net/tun
// is closed to users. It carries the kernel's own offloads (PACKET_VNET_HDR).
//
// Out: the host's side is made first, and the container's accepted only then, so a
// closed port is refused as it would be without us; nothing here knows which
// addresses exist.
//
// In: the sockets of published ports were bound by the container's monitor. The
// container is connected to from the client's own address and port: it sees who its
// client is, over TCP and UDP. A client on the host's loopback, which would mean
// the container itself, appears as 169.254.1.2.
//
// Where the kernel has no nft_tproxy or nft_socket, gVisor's network stack ends the
// connections instead (forward.go), more slowly; it also keeps the link itself alive.
//
// For root the kernel's own routing does all this. The helper then is the name
// server, and relays what the packet filter cannot publish (from ::1, and from one
// version of IP to the other).
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
