// Package cgroup makes, limits, watches and removes the control groups of one
// container, on cgroup v2, v1 and hybrid hosts, for root and for ordinary users.
//
// It hides where the hierarchies are, who may write there, the files of both
// versions and the order in which they must be written, and systemd.
//
// # Where a group is made
//
// A group is made below the caller's own, so that a container never has more
// than who started it; a parent given by name changes that. Its directory is
// called isle-NAME.
//
// On v1 each controller is a hierarchy of its own. Only those are joined whose
// limits are asked for; and the v2 hierarchy always, if one is mounted (hybrid
// hosts mount one without controllers): being born into a v2 group
// (clone3, CLONE_INTO_CGROUP) costs nothing, and it gives cgroup.kill,
// cgroup.freeze, cpu.stat and the device filter. A host with no v2 at all has
// the freezer joined, for there is no other way to pause.
//
// On v2 a group whose parent shall hand out controllers must not share that
// parent with processes ("no internal processes", cgroups(7)), and the caller
// is in the way itself. A container without limits does not need controllers:
// it gets a group if the caller may make one, and none otherwise. For limits,
// the first that fits:
//
//	the caller is in a leaf made here earlier      the directory above it
//	the caller is in the true root                 it is exempt from the rule
//	the caller's group was delegated, or there is  all its processes move into a leaf,
//	no systemd and the caller may write there      isle-callers, once; then below it
//	there is a systemd manager                     isle.slice/isle.scope of the system or the
//	                                               user, one unit with Delegate= for all
//	                                               containers; the caller is moved there too,
//	                                               which an ordinary user's process must be to
//	                                               put children there, and which holds the unit
//	nothing of that                                an error that says what is missing, with hints
//
// That is for the engine. For an OCI runtime ([Host.CreateOCI]) the place is the
// one that linux.cgroupsPath names, in every hierarchy there is, whether a limit
// needs it or not: callers look there by themselves, to count, to freeze and to
// nest. Rules and limits are then what other runtimes make of them. A systemd
// unit, which wants a process, is made in Attach.
//
// # Joining
//
// Writing a pid into cgroup.procs of a v1 hierarchy takes a global lock whose
// writers wait for an RCU grace period: 7 to 25 ms measured on an idle machine.
// A process of a single thread that writes 0 into "tasks" moves only itself and
// skips that lock (9a3284fad42f "cgroup: Optimize single thread migration", older
// than our oldest kernel): 0.1 ms for four hierarchies. So the forked child joins by itself
// through the files of [Group.JoinFiles]; [Group.Attach] is for everything else.
// A cgroup namespace must be unshared after that, since its root is where the
// process is at that moment (cgroup_namespaces(7)).
//
// # Limits
//
// They come as OCI resources, which are in terms of v1, and are converted for v2
// as runc does. A limit that the machine cannot apply is an error, never a
// silent success; so is one above an ancestor's limit, for it would promise what
// the container cannot have. What Docker only warns about is in
// [Group.Warnings].
//
// Invariants: nothing is written outside directories made here, but for
// cgroup.subtree_control of the parents and the leaf isle-callers; a failed
// Create leaves nothing; every method works on a Group that was opened from
// [Paths] by another process; no state and no work at program start.
//
// See cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1 of the
// kernel, systemd.resource-control(5), org.freedesktop.systemd1(5), and
// "Control Group APIs and Delegation" of systemd.
package cgroup
