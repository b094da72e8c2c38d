// Package userns keeps one user namespace, with one mount namespace in it, per
// ordinary user, and computes the id mappings of containers inside it.
//
// It hides how the ids are mapped (newuidmap, or the one id that needs nobody's
// leave), which process keeps the namespaces alive, and how the next command
// finds them again.
//
// # Theory
//
// Creating a user namespace with a range of ids costs two runs of set-uid
// programs, some 3 ms. So it is done once per user:
//
//	isle ──clone(NEWUSER|NEWNS)──▶ holder (package pid1, 2 KiB)   waits
//	isle ──newuidmap, newgidmap──▶ uid_map, gid_map of the holder
//	isle ──one byte──▶ holder      makes mounts slaves, answers, sleeps for ever
//	isle: DIR/holder = its pid, start time, namespace ids, maps
//
// Every later command reads DIR/holder, opens /proc/PID/ns/{user,mnt}, checks
// that they are what the file says, and its children join them by setns(2).
//
//	inside   outside
//	0        the user                  (size 1)
//	1 …      the ranges of /etc/subuid and /etc/subgid, in file order
//
// Without a range or a working newuidmap only 0 is mapped ([Namespace.SingleID])
// and Advice says what to do about it. When that has been done, and no container
// runs, the next command makes the namespace anew.
//
// The mount namespace is owned by the user namespace, so the kernel turns shared
// mounts into slaves in it: what the host mounts later is seen, nothing mounted
// inside gets out (mount_namespaces(7)).
//
// # The life of the holder
//
// It ends by SIGKILL or SIGTERM only: on shutdown, with the container or service
// that isle was called in, at logout where systemd-logind has
// KillUserProcesses=yes, or by [Stop]. Then the next Ensure looks for a process
// that is still in the recorded namespaces (the monitor of a running container)
// and starts a new holder there. If there is none it makes new namespaces; the
// mapping is the same, so files keep their owners.
//
// When DIR itself disappears (systemd-logind removes $XDG_RUNTIME_DIR at the
// last logout) the holder, which carries DIR in its arguments, is found again.
//
// # Invariants
//
//   - One live holder per DIR: creation happens under a lock on DIR/lock.
//   - A namespace is returned only if this user owns it (NS_GET_OWNER_UID).
//   - Without [Stop] nothing kills a holder that anybody else may be using.
//
// See user_namespaces(7), mount_namespaces(7), newuidmap(1), subuid(5),
// ioctl_ns(2), proc_pid_uid_map(5).
package userns
