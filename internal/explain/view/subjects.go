package view

// subjects are the groups of refused system calls, in the order they are shown.
func subjects() []string {
	return []string{
		"mounts and roots", "namespaces", "kernel modules and boot", "clocks", "tracing and other processes", "performance, BPF and tracing the kernel",
		"keys of the kernel", "memory placement", "devices and quotas", "io_uring and new interfaces", "old and unused", byArguments,
	}
}

// byArguments are calls that are allowed otherwise.
const byArguments = "by their arguments"

// SubjectOf is what a system call is about.
func SubjectOf(call string) string {
	switch call {
	case "mount", "umount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "open_tree_attr", "mount_setattr",
		"statmount", "listmount", "swapon", "swapoff":
		return "mounts and roots"
	case "unshare", "setns", "clone", "clone3", "sethostname", "setdomainname":
		return "namespaces"
	case "init_module", "finit_module", "delete_module", "create_module", "get_kernel_syms", "query_module", "kexec_load", "kexec_file_load", "reboot", "syslog", "vhangup":
		return "kernel modules and boot"
	case "settimeofday", "stime", "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex":
		return "clocks"
	case "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "lookup_dcookie", "acct":
		return "tracing and other processes"
	case "bpf", "perf_event_open", "fanotify_init", "fanotify_mark", "userfaultfd":
		return "performance, BPF and tracing the kernel"
	case "add_key", "request_key", "keyctl":
		return "keys of the kernel"
	case "mbind", "move_pages", "migrate_pages", "set_mempolicy", "get_mempolicy", "set_mempolicy_home_node":
		return "memory placement"
	case "ioperm", "iopl", "quotactl", "quotactl_fd", "nfsservctl", "open_by_handle_at", "name_to_handle_at":
		return "devices and quotas"
	case "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret", "map_shadow_stack", "lsm_set_self_attr", "lsm_get_self_attr", "lsm_list_modules",
		"file_getattr", "file_setattr", "uretprobe", "uprobe":
		return "io_uring and new interfaces"
	}
	return "old and unused"
}
