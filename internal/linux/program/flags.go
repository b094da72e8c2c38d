package program

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

type flagName struct {
	bit  uint64
	name string
}

// flagSet is the names for one argument letter of a signature, and what a zero
// is called.
func flagSet(kind byte) ([]flagName, string) {
	switch kind {
	case 'A': // *at calls
		return []flagName{
			{unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"},
			{unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"},
			{unix.AT_RECURSIVE, "AT_RECURSIVE"},
			{unix.AT_EACCESS, "AT_EACCESS"},
		}, "0"
	case 'B': // mount
		return []flagName{
			{unix.MS_RDONLY, "MS_RDONLY"},
			{unix.MS_NOSUID, "MS_NOSUID"},
			{unix.MS_NODEV, "MS_NODEV"},
			{unix.MS_NOEXEC, "MS_NOEXEC"},
			{unix.MS_REMOUNT, "MS_REMOUNT"},
			{unix.MS_BIND, "MS_BIND"},
			{unix.MS_MOVE, "MS_MOVE"},
			{unix.MS_REC, "MS_REC"},
			{unix.MS_UNBINDABLE, "MS_UNBINDABLE"},
			{unix.MS_PRIVATE, "MS_PRIVATE"},
			{unix.MS_SLAVE, "MS_SLAVE"},
			{unix.MS_SHARED, "MS_SHARED"},
		}, "0"
	case 'C': // clone, unshare, setns
		return []flagName{
			{unix.CLONE_NEWUSER, "CLONE_NEWUSER"},
			{unix.CLONE_NEWPID, "CLONE_NEWPID"},
			{unix.CLONE_NEWNS, "CLONE_NEWNS"},
			{unix.CLONE_NEWNET, "CLONE_NEWNET"},
			{unix.CLONE_NEWUTS, "CLONE_NEWUTS"},
			{unix.CLONE_NEWIPC, "CLONE_NEWIPC"},
			{unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"},
			{unix.CLONE_NEWTIME, "CLONE_NEWTIME"},
		}, "0"
	case 'M': // fsmount
		return []flagName{
			{unix.MOUNT_ATTR_RDONLY, "MOUNT_ATTR_RDONLY"},
			{unix.MOUNT_ATTR_NOSUID, "MOUNT_ATTR_NOSUID"},
			{unix.MOUNT_ATTR_NODEV, "MOUNT_ATTR_NODEV"},
			{unix.MOUNT_ATTR_NOEXEC, "MOUNT_ATTR_NOEXEC"},
			{unix.MOUNT_ATTR_NOATIME, "MOUNT_ATTR_NOATIME"},
			{unix.MOUNT_ATTR_STRICTATIME, "MOUNT_ATTR_STRICTATIME"},
			{unix.MOUNT_ATTR_NODIRATIME, "MOUNT_ATTR_NODIRATIME"},
			{unix.MOUNT_ATTR_NOSYMFOLLOW, "MOUNT_ATTR_NOSYMFOLLOW"},
		}, "0"
	case 'K': // socket types
		return []flagName{{unix.SOCK_CLOEXEC, "SOCK_CLOEXEC"}, {unix.SOCK_NONBLOCK, "SOCK_NONBLOCK"}, {unix.SOCK_RAW, "SOCK_RAW"}, {unix.SOCK_DGRAM, "SOCK_DGRAM"}, {unix.SOCK_STREAM, "SOCK_STREAM"}}, "0"
	case 'N': // fsopen
		return []flagName{{unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC"}}, "0"
	case 'Z': // fsmount
		return []flagName{{unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"}}, "0"
	case 'Q': // seccomp
		return []flagName{
			{unix.SECCOMP_FILTER_FLAG_TSYNC, "SECCOMP_FILTER_FLAG_TSYNC"},
			{unix.SECCOMP_FILTER_FLAG_LOG, "SECCOMP_FILTER_FLAG_LOG"},
			{unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"},
			{unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, "SECCOMP_FILTER_FLAG_NEW_LISTENER"},
		}, "0"
	case 'O': // open
		return []flagName{
			{unix.O_WRONLY, "O_WRONLY"},
			{unix.O_RDWR, "O_RDWR"},
			{unix.O_CREAT, "O_CREAT"},
			{unix.O_EXCL, "O_EXCL"},
			{unix.O_NOCTTY, "O_NOCTTY"},
			{unix.O_TRUNC, "O_TRUNC"},
			{unix.O_NONBLOCK, "O_NONBLOCK"},
			{unix.O_DIRECTORY, "O_DIRECTORY"},
			{unix.O_NOFOLLOW, "O_NOFOLLOW"},
			{unix.O_CLOEXEC, "O_CLOEXEC"},
			{unix.O_PATH, "O_PATH"},
		}, "O_RDONLY"
	case 'T': // open_tree
		return []flagName{
			{unix.OPEN_TREE_CLONE, "OPEN_TREE_CLONE"},
			{unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLOEXEC"},
			{unix.AT_RECURSIVE, "AT_RECURSIVE"},
			{unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"},
			{unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"},
		}, "0"
	case 'U': // umount2
		return []flagName{{unix.MNT_FORCE, "MNT_FORCE"}, {unix.MNT_DETACH, "MNT_DETACH"}, {unix.UMOUNT_NOFOLLOW, "UMOUNT_NOFOLLOW"}}, "0"
	case 'V': // move_mount
		return []flagName{{unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"}, {unix.MOVE_MOUNT_T_EMPTY_PATH, "MOVE_MOUNT_T_EMPTY_PATH"}}, "0"
	case 'r': // openat2
		return []flagName{
			{unix.RESOLVE_IN_ROOT, "RESOLVE_IN_ROOT"},
			{unix.RESOLVE_BENEATH, "RESOLVE_BENEATH"},
			{unix.RESOLVE_NO_MAGICLINKS, "RESOLVE_NO_MAGICLINKS"},
			{unix.RESOLVE_NO_SYMLINKS, "RESOLVE_NO_SYMLINKS"},
			{unix.RESOLVE_NO_XDEV, "RESOLVE_NO_XDEV"},
		}, "0"
	}
	return nil, "0"
}

func flags(kind byte, v uint64) string {
	set, zero := flagSet(kind)
	if v == 0 {
		return zero
	}
	var names []string
	for _, f := range set {
		if v&f.bit == f.bit {
			names = append(names, f.name)
			v &^= f.bit
		}
	}
	if v != 0 {
		names = append(names, fmt.Sprintf("%#x", v))
	}
	return strings.Join(names, "|")
}

// enum names one of several values.
func enum(kind byte, v uint64) string {
	var set []flagName
	switch kind {
	case 'F':
		set = []flagName{
			{unix.FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG"},
			{unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"},
			{unix.FSCONFIG_SET_FD, "FSCONFIG_SET_FD"},
			{unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"},
			{unix.FSCONFIG_CMD_RECONFIGURE, "FSCONFIG_CMD_RECONFIGURE"},
		}
	case 'P':
		set = []flagName{
			{unix.PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG"},
			{unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"},
			{unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"},
			{unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"},
			{unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"},
			{unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"},
			{unix.PR_SET_SECCOMP, "PR_SET_SECCOMP"},
		}
	case 'D':
		set = []flagName{{unix.AF_UNIX, "AF_UNIX"}, {unix.AF_INET, "AF_INET"}, {unix.AF_INET6, "AF_INET6"}, {unix.AF_NETLINK, "AF_NETLINK"}}
	case 'I':
		set = []flagName{
			{unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"},
			{unix.TIOCSPTLCK, "TIOCSPTLCK"},
			{unix.TIOCGPTPEER, "TIOCGPTPEER"},
			{unix.TIOCSWINSZ, "TIOCSWINSZ"},
			{unix.TIOCSCTTY, "TIOCSCTTY"},
		}
	case 'S':
		set = []flagName{{unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"}}
	case 'Y':
		set = []flagName{{unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"}, {unix.F_SETFD, "F_SETFD"}, {unix.F_GETFD, "F_GETFD"}}
	case 'R':
		set = []flagName{
			{unix.RLIMIT_AS, "RLIMIT_AS"},
			{unix.RLIMIT_CORE, "RLIMIT_CORE"},
			{unix.RLIMIT_CPU, "RLIMIT_CPU"},
			{unix.RLIMIT_DATA, "RLIMIT_DATA"},
			{unix.RLIMIT_FSIZE, "RLIMIT_FSIZE"},
			{unix.RLIMIT_LOCKS, "RLIMIT_LOCKS"},
			{unix.RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"},
			{unix.RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"},
			{unix.RLIMIT_NICE, "RLIMIT_NICE"},
			{unix.RLIMIT_NOFILE, "RLIMIT_NOFILE"},
			{unix.RLIMIT_NPROC, "RLIMIT_NPROC"},
			{unix.RLIMIT_RSS, "RLIMIT_RSS"},
			{unix.RLIMIT_RTPRIO, "RLIMIT_RTPRIO"},
			{unix.RLIMIT_RTTIME, "RLIMIT_RTTIME"},
			{unix.RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"},
			{unix.RLIMIT_STACK, "RLIMIT_STACK"},
		}
	}
	for _, n := range set {
		if n.bit == v {
			return n.name
		}
	}
	return fmt.Sprintf("%#x", v)
}
