package ocicli

// command is one command of the table.
type command struct {
	name, short, usage, long string
	flags                    []flag
	min, max                 int // arguments; max -1: any number
	wordsEndFlags            bool
	failed                   string // begins its errors: "runc create" failed
	run                      func(c *call) error
}

const idUsage = "<container-id>"

// commands is the table. It is a function so that it costs nothing at start.
func commands() []command {
	bundle := flag{names: "bundle b", help: "directory of the bundle", def: "the current directory"}
	console := flag{names: "console-socket", help: "UNIX socket that gets the master of the container's terminal"}
	pidfd := flag{names: "pidfd-socket", help: "UNIX socket that gets a pidfd of the process"}
	pidFile := flag{names: "pid-file", help: "file for the process's id"}
	config := flag{names: "config f", help: "as crun has it: the bundle's file in place of config.json", hidden: true}
	noPivot := flag{names: "no-pivot", kind: boolean, help: "change the root without pivot_root(2), for a root on the initial ramdisk"}
	noKeyring := flag{names: "no-new-keyring", kind: boolean, help: "leave the process the caller's session keyring"}
	preserve := flag{names: "preserve-fds", kind: integer, help: "pass on N more descriptors after the standard ones and those of $LISTEN_FDS", def: "0"}
	noReaper := flag{names: "no-subreaper", kind: boolean, help: "do not reap the container's orphans"}
	detach := flag{names: "detach d", kind: boolean, help: "do not wait for the process's end"}
	criu := []flag{
		{names: "image-path", help: "directory of the images"},
		{names: "work-path", help: "directory for logs and temporary files"},
		{names: "parent-path", help: "directory of an earlier dump, relative to the images"},
		{names: "leave-running", kind: boolean, help: "let the container go on"},
		{names: "tcp-established", kind: boolean, help: "allow open TCP connections"},
		{names: "tcp-skip-in-flight", kind: boolean, help: "leave out connections that are being made"},
		{names: "link-remap", kind: boolean, help: "remember unlinked files by links"},
		{names: "ext-unix-sk", kind: boolean, help: "allow UNIX sockets that lead outside"},
		{names: "shell-job", kind: boolean, help: "allow a terminal from outside"},
		{names: "lazy-pages", kind: boolean, help: "transfer memory when it is needed"},
		{names: "status-fd", kind: integer, help: "descriptor that is told when the page server is ready"},
		{names: "page-server", help: "ADDRESS:PORT of a page server"},
		{names: "file-locks", kind: boolean, help: "allow file locks"},
		{names: "pre-dump", kind: boolean, help: "dump memory only, and go on"},
		{names: "manage-cgroups-mode", help: "what to do about cgroups: soft, full, strict, ignore"},
		{names: "empty-ns", kind: list, help: "make a namespace without restoring its contents"},
		{names: "auto-dedup", kind: boolean, help: "remove what a later dump holds from earlier ones"},
		{names: "lsm-profile", help: "security label to restore with: TYPE:NAME"},
		{names: "lsm-mount-context", help: "SELinux context of mounts to restore with"},
	}
	return []command{
		{name: "checkpoint", short: "Write a running container to files (not supported yet)", usage: idUsage, flags: criu, min: 1, max: 1, run: (*call).checkpoint},
		{
			name: "create", short: "Create a container", usage: idUsage, min: 1, max: 1, failed: "runc create", run: (*call).create,
			long:  "Makes all of the container but for its command, which start executes.",
			flags: []flag{bundle, config, console, pidfd, pidFile, noPivot, noKeyring, preserve},
		},
		{
			name: "delete", short: "Delete a container that is not running", usage: idUsage, min: 1, max: 1, run: (*call).delete,
			flags: []flag{{names: "force f", kind: boolean, help: "kill it first if it runs (SIGKILL)"}},
		},
		{
			name: "events", short: "Show a container's events and what it uses", usage: idUsage, min: 1, max: 1, run: (*call).events,
			flags: []flag{
				{names: "interval", kind: duration, help: "time between statistics", def: "5s"},
				{names: "stats", kind: boolean, help: "print the statistics once"},
			},
		},
		{
			name: "exec", short: "Execute a process in a container", usage: idUsage + " <command> [command options] || -p process.json " + idUsage,
			min: 1, max: -1, wordsEndFlags: true, failed: "exec", run: (*call).exec,
			flags: []flag{
				console, pidfd,
				{names: "cwd", help: "working directory"},
				{names: "env e", kind: list, help: "set an environment variable"},
				{names: "tty t", kind: boolean, help: "give it a terminal"},
				{names: "user u", help: "UID[:GID]"},
				{names: "additional-gids g", kind: integers, help: "further groups"},
				{names: "process p", help: "file with the process as JSON, in place of all this"},
				detach, pidFile,
				{names: "process-label", help: "SELinux label"},
				{names: "apparmor", help: "AppArmor profile"},
				{names: "no-new-privs", kind: boolean, help: "allow no gain of privileges"},
				{names: "cap c", kind: list, help: "add a capability"},
				preserve,
				{names: "cgroup", kind: list, help: "run it in a cgroup below the container's: [CONTROLLER,...:]PATH"},
				{names: "ignore-paused", kind: boolean, help: "also in a paused container"},
				noReaper,
			},
		},
		{name: "features", short: "Show what this runtime can do, as JSON", flags: nil, run: (*call).features},
		{
			name: "kill", short: "Send a signal to a container's process (SIGTERM if none is named)", usage: idUsage + " [signal]", min: 1, max: 2, run: (*call).kill,
			flags: []flag{{names: "all a", kind: boolean, help: "a container that has ended is no error", hidden: true}},
		},
		{
			name: "list", short: "List the containers of a root", usage: "", run: (*call).list,
			flags: []flag{
				{names: "format f", help: "table or json", def: "table"},
				{names: "quiet q", kind: boolean, help: "print the names only"},
			},
		},
		{name: "pause", short: "Freeze all processes of a container", usage: idUsage, min: 1, max: 1, run: (*call).pause},
		{
			name: "ps", short: "List the processes of a container", usage: idUsage + " [ps options]", min: 1, max: -1, wordsEndFlags: true, run: (*call).ps,
			flags: []flag{{names: "format f", help: "table or json", def: "table"}},
		},
		{
			name: "restore", short: "Bring a container back from files (not supported yet)", usage: idUsage, min: 1, max: 1, run: (*call).restore,
			flags: append([]flag{bundle, console, pidFile, detach, noReaper, noPivot}, criu...),
		},
		{name: "resume", short: "Let a frozen container go on", usage: idUsage, min: 1, max: 1, run: (*call).resume},
		{
			name: "run", short: "Create a container and start it", usage: idUsage, min: 1, max: 1, failed: "runc run", run: (*call).runContainer,
			flags: []flag{bundle, config, console, pidfd, detach, {names: "keep", kind: boolean, help: "do not delete the container at its end"}, pidFile, noReaper, noPivot, noKeyring, preserve},
		},
		{
			name: "spec", short: "Write a config.json to begin with", run: (*call).spec,
			flags: []flag{
				{names: "bundle b", help: "directory to write it to"},
				{names: "rootless", kind: boolean, help: "for an ordinary user"},
			},
		},
		{name: "start", short: "Execute the command of a created container", usage: idUsage, min: 1, max: 1, run: (*call).start},
		{name: "state", short: "Show the state of a container, as JSON", usage: idUsage, min: 1, max: 1, run: (*call).state},
		{
			name: "update", short: "Change the limits of a container", usage: idUsage, min: 1, max: 1, run: (*call).update,
			long: "With --resources the other flags are not looked at. The file holds what is to be\nchanged of linux.resources: memory, cpu, pids, blockIO, unified.",
			flags: []flag{
				{names: "resources r", help: "file with the limits as JSON; \"-\": standard input"},
				{names: "blkio-weight", kind: integer, help: "block I/O weight, 10 to 1000"},
				{names: "cpu-period", help: "period of the CPU limit in microseconds"},
				{names: "cpu-quota", help: "CPU time in each period in microseconds"},
				{names: "cpu-burst", help: "unused CPU time that may be saved up, in microseconds"},
				{names: "cpu-share", help: "weight against other containers"},
				{names: "cpu-rt-period", help: "period of the realtime limit in microseconds"},
				{names: "cpu-rt-runtime", help: "realtime CPU time in each period in microseconds"},
				{names: "cpuset-cpus", help: "CPUs to use"},
				{names: "cpuset-mems", help: "memory nodes to use"},
				{names: "cpu-idle", help: "1: run only when nobody else wants to"},
				{names: "kernel-memory", hidden: true},
				{names: "kernel-memory-tcp", hidden: true},
				{names: "memory", help: "memory limit in bytes"},
				{names: "memory-reservation", help: "memory that is left to it when memory is short, in bytes"},
				{names: "memory-swap", help: "limit of memory and swap together in bytes; -1: none"},
				{names: "pids-limit", kind: integer, help: "most processes and threads"},
				{names: "l3-cache-schema", help: "Intel RDT cache schema"},
				{names: "mem-bw-schema", help: "Intel RDT memory bandwidth schema"},
			},
		},
	}
}

func find(name string) *command {
	table := commands()
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}
