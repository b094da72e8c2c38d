package plan

import (
	"strings"

	"github.com/isle-engine/isle/internal/runtime"
)

// text is what is said about a call.
type text struct{ group, why, man string }

// explain chooses the group, the reason and the manual page of a call by its step
// and its name.
func explain(c *runtime.Call) text {
	t := byStep(c)
	if t.man == "" {
		t.man = manual(c.Name)
	}
	if w := byName(c); w != "" {
		t.why = w
	}
	return t
}

// byStep explains the step that a call belongs to.
func byStep(c *runtime.Call) text {
	switch c.Do.Verb {
	case "open namespace":
		return text{gNamespaces, "the namespace of another container, opened while its name still means that", "namespaces(7)"}
	case "join namespace":
		return text{gNamespaces, "from here on the child shares this with the other container", "setns(2)"}
	case "clone":
		return text{gNamespaces, "the child is born into namespaces where it is alone: what it does there nobody else sees (a network namespace that nothing is plugged into is made a moment ahead, to save its time, and joined)", "clone(2)"}
	case "new namespace", "new namespaces":
		if c.Do.Object == "cgroup" {
			return text{gNamespaces, "the child's own cgroup becomes the root of what it sees of them", "cgroup_namespaces(7)"}
		}
		if c.Do.Object == "user" {
			return text{gUsers, "take on the root that the new user namespace maps", "user_namespaces(7)"}
		}
		return text{gNamespaces, "namespaces that only root of the joined user namespace may make", "unshare(2)"}
	case "enter namespaces":
		return text{gNamespaces, "a pid namespace has only those who are born in it: a second child goes on", "pid_namespaces(7)"}
	case "clock offsets":
		return text{gNamespaces, "what its clocks differ by", "time_namespaces(7)"}
	case "hide from the container":
		return text{gCredentials, "until execve nobody inside may trace this process or open its files", "PR_SET_DUMPABLE(2const)"}
	case "bring up":
		return text{gNetwork, "127.0.0.1 works; a new network namespace has it switched off", "netdevice(7)"}
	case "network":
		return text{gNetwork, "the parent connects the new namespace", "network_namespaces(7)"}
	case "root":
		return text{gRoot, "a private copy of the mounts at the root directory", "open_tree(2)"}
	case "make mounts private":
		return text{gMounts, "mounts made from here on are seen by nobody on the host", "mount_namespaces(7)"}
	case "change root":
		return text{gRoot, "", "pivot_root(2)"}
	case "remount":
		return text{gRoot, "the root file system as asked for: " + c.Do.Flags, "mount_setattr(2)"}
	case "mount":
		return text{gMounts, mountWhy(c.Do.Type, c.Do.Dst), ""}
	case "open host's":
		return text{gMounts, "what the kernel may refuse to mount anew in a user namespace is shown as the host has it", "open_tree(2)"}
	case "device", "devices in", "links in":
		return text{gDevices, "", ""}
	case "terminal":
		return text{gDevices, "a terminal of the container's own; its other end goes to you", "pty(7)"}
	case "mask", "mask with":
		return text{gMounts, "hide what tells of the host or should be touched by the host's root only", ""}
	case "read-only":
		return text{gMounts, "settings of the whole machine: may be read, not changed", "mount_setattr(2)"}
	case "sysctl", "proc for sysctls":
		return text{gLimits, "a setting of the container's own namespace", "proc_sys(5)"}
	case "host name":
		return text{gNamespaces, "its own name, in its own UTS namespace", "uts_namespaces(7)"}
	case "domain name":
		return text{gNamespaces, "its own NIS domain name", "uts_namespaces(7)"}
	case "security label":
		return text{gCredentials, "the security module confines what is executed next by this label", "apparmor(7)"}
	case "working directory":
		return text{gExec, "where the command starts; looked up inside the container's root only", ""}
	case "standard files":
		return text{gExec, "what is not connected reads nothing and writes to nobody", "null(4)"}
	case "session":
		return text{gExec, "", ""}
	case "umask":
		return text{gExec, "permissions that new files do not get", "umask(2)"}
	case "limit":
		return text{gLimits, "a limit of each process, beside the group's", "getrlimit(2)"}
	case "io priority", "scheduler":
		return text{gLimits, "when it gets its turn", ""}
	case "personality":
		return text{gExec, "the machine that uname tells of", "personality(2)"}
	case "gate":
		return text{gExec, "all is ready; wait for `start`", ""}
	case "capabilities", "capabilities for seccomp":
		return text{gCredentials, "", "capabilities(7)"}
	case "user":
		return text{gCredentials, "", "credentials(7)"}
	case "die with parent":
		return text{gCredentials, "a container whose monitor is gone has nobody to keep its log and its exit code", "PR_SET_PDEATHSIG(2const)"}
	case "close files":
		return text{gExec, "only descriptors 0, 1 and 2 reach the command", "close_range(2)"}
	case "no new privileges":
		return text{gFilter, "set-uid programs give nothing from here on", "PR_SET_NO_NEW_PRIVS(2const)"}
	case "seccomp":
		return text{gFilter, "a program that the kernel runs before each system call: some are refused", "seccomp(2)"}
	case "execute":
		return text{gExec, "", ""}
	}
	return text{gExec, "", ""}
}

// byName is the reason of a call that differs from its step's, "" for none.
func byName(c *runtime.Call) string {
	verb := c.Do.Verb
	switch c.Name {
	case "pivot_root":
		return "the container's tree becomes / of the namespace; the host's lies on top of it for one moment"
	case "umount2":
		return "the host's tree is gone: no name leads there any more"
	case "fchdir":
		if verb == "change root" {
			return "stand in the new root"
		}
	case "getcwd":
		return "the kernel itself must say that this lies inside the root (CVE-2024-21626)"
	case "move_mount":
		switch verb {
		case "change root":
			return "the layers, seen as one tree, are laid over the old root"
		case "mask":
			return "laid over it: what is below cannot be reached"
		}
		return "the finished mount appears in the container's tree, in one step"
	case "fsopen":
		if c.Do.Type == "" {
			return "begin: an empty directory, to hide others with"
		}
		return "begin: " + c.Do.Type + ", " + mountWhy(c.Do.Type, c.Do.Dst)
	case "fsconfig":
		if strings.Contains(c.Text, "CMD_CREATE") {
			return "the kernel makes the file system"
		}
		return "an option of it"
	case "fsmount":
		return "a mount of it, attached nowhere yet"
	case "openat2":
		if verb == "mount" || verb == "mask" || verb == "read-only" {
			return "the place for it, found inside the new root; a link in the image cannot lead out"
		}
	case "mkpath":
		return "made where it is missing, step by step and inside the root"
	case "mount_setattr":
		if verb == "mount" {
			return "flags before it is seen: there is no moment without them"
		}
	case "open_tree":
		switch verb {
		case "mount":
			return "a private copy of the mount at the source"
		case "device":
			return "the host's own node, since a user namespace may not make any"
		}
	case "mknodat":
		if strings.Contains(c.Text, "0100000") {
			return "an empty file for it to be laid over"
		}
		return deviceWhy(c.Do.Object)
	case "symlinkat":
		return "a name that programs expect"
	case "fchownat", "fchown":
		return "its owner"
	case "setsid":
		return "a session of its own: signals of your terminal do not reach it"
	case "dup3", "fcntl":
		if verb == "session" {
			return "standard input, output and error"
		}
	case "umask":
		if verb == "change root" {
			return "modes from here on are meant as written"
		}
	case "prctl":
		switch {
		case strings.Contains(c.Text, "PR_CAPBSET_DROP"):
			return "out of the bounding set: no program it runs can ever get this one"
		case strings.Contains(c.Text, "PR_SET_KEEPCAPS"):
			return "the change of uid would drop all capabilities at once"
		case strings.Contains(c.Text, "PR_CAP_AMBIENT"):
			return "kept across execve although the user is not root"
		}
	case "capset":
		return "exactly these parts of root's power, and no others"
	case "setgroups":
		return "its groups; the caller's own are dropped"
	case "setresgid":
		return "its group"
	case "setresuid":
		return "its user"
	case "faccessat", "faccessat2":
		return "is the command this file?"
	case "execve", "execveat":
		return "the child becomes the command; what follows is the container's own doing"
	}
	return ""
}

// mountWhy says what a mount gives.
func mountWhy(typ, dst string) string {
	switch typ {
	case "proc":
		return "shows processes of its own pid namespace only"
	case "sysfs":
		return "devices and kernel objects; network ones are its own"
	case "tmpfs":
		if dst == "/dev" {
			return "an empty /dev in memory, to hold a few harmless devices"
		}
		return "files in memory, gone with the container"
	case "devpts":
		return "its own terminals: those of others have no name here"
	case "mqueue":
		return "POSIX message queues of its own IPC namespace"
	case "cgroup", "cgroup2":
		return "its own part of the cgroup tree"
	case "bind":
		switch dst {
		case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf":
			return "a file that isle writes for it: names and name servers"
		}
		return "a directory or file of the host, seen inside"
	}
	return "a mount that was asked for"
}

func deviceWhy(dev string) string {
	switch dev {
	case "/dev/null":
		return "swallows all, gives nothing"
	case "/dev/zero":
		return "gives zeros"
	case "/dev/full":
		return "always full, to test programs with"
	case "/dev/random", "/dev/urandom":
		return "the kernel's random numbers"
	case "/dev/tty":
		return "whatever terminal a process has"
	}
	return "a device that was asked for"
}

// manual is the page of a system call.
func manual(name string) string {
	switch name {
	case "mkpath":
		return "mkdirat(2)"
	case "getcwd":
		return "getcwd(3)"
	case "", "load", "await", "sync":
		return "clone(2)"
	}
	return name + "(2)"
}
