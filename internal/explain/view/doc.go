// Package view looks at one container and says what it is: the process under both
// its numbers, its namespaces and with whom they are shared, its cgroup with
// limits and use, its mounts traced to layers, what it may do and what is refused,
// and its way to the network.
//
// Everything is read from the kernel at the moment of the call: /proc, the cgroup
// file systems, the files of namespaces, netlink. The container's record serves
// for two things only: to know where to look, and to be compared with; where the
// kernel says something else, that is a [Difference].
//
// A look changes nothing and stops nobody. Two children are forked and joined to
// the container's namespaces for what can be seen only from within (package
// linux/ns); they run no code of the container. Strings that a container chooses
// (names of processes, mounts, hosts) are returned as they are: whoever prints
// them makes them harmless.
//
// See proc(5), namespaces(7), cgroups(7), capabilities(7), ioctl_nsfs(2).
package view
