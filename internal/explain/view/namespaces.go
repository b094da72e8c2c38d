package view

import (
	"strconv"

	"github.com/isle-engine/isle/internal/linux/ns"
)

// Hides says what a namespace keeps from the container.
func Hides(kind string) string {
	switch kind {
	case "user":
		return "who it is: ids and capabilities count only inside"
	case "mnt":
		return "the host's file systems"
	case "pid":
		return "the host's processes; it counts its own from 1"
	case "net":
		return "the host's interfaces, addresses, routes and ports"
	case "uts":
		return "the host's name"
	case "ipc":
		return "the host's shared memory and message queues"
	case "cgroup":
		return "where in the host's cgroup tree it is"
	case "time":
		return "the time since boot"
	}
	return ""
}

// namespaces compares the container's with the caller's and with those of other
// containers.
func (l *looker) namespaces() {
	pid := strconv.Itoa(l.pid)
	for _, kind := range ns.Kinds() {
		n := Namespace{Kind: kind, Inode: ns.Inode(pid, kind), Host: ns.Inode("self", kind), Hides: Hides(kind)}
		if n.Inode == 0 {
			continue // this kernel has none
		}
		if n.Inode == n.Host {
			n.Shared = true
			n.With = append(n.With, "the host")
			n.Hides = "nothing: it sees the host's"
		} else {
			n.Owner = ns.Owner(pid, kind)
		}
		for _, p := range l.s.Peers {
			if ns.Inode(strconv.Itoa(p.Pid), kind) == n.Inode && !(n.Inode == n.Host) {
				n.Shared = true
				n.With = append(n.With, p.Name)
			}
		}
		if l.s.Env.Rootless && kind == "user" && n.Inode != n.Host && l.sharesUsers() {
			n.With = append(n.With, "your other containers (isle's own namespace of user "+strconv.Itoa(l.s.Env.UID)+")")
			n.Shared = true
		}
		l.v.Namespaces = append(l.v.Namespaces, n)
	}
	c := &l.s.Record.Config
	for _, x := range [...]struct{ kind, mode, what string }{
		{"net", c.Network, "network"}, {"pid", c.PID, "pid namespace"}, {"ipc", c.IPC, "ipc namespace"}, {"uts", c.UTS, "uts namespace"}, {"cgroup", c.Cgroupns, "cgroup namespace"},
	} {
		for i := range l.v.Namespaces {
			n := &l.v.Namespaces[i]
			if n.Kind != x.kind {
				continue
			}
			host := n.Inode == n.Host
			switch {
			case x.mode == "host" && !host:
				l.v.differ(x.what, "the host's", "its own")
			case x.mode != "host" && host && (x.kind != "pid" || ns.Inode("1", "pid") == n.Inode || ns.Inode("1", "pid") == 0):
				l.v.differ(x.what, "its own", "the host's")
			}
		}
	}
}

// sharesUsers reports whether the container has no user namespace of its own.
func (l *looker) sharesUsers() bool {
	u := l.s.Record.Config.Userns
	return u == "" || u == "host"
}
