// Package tour is the guided tour: what each lesson says, which commands it
// performs, what it asks and what the answer is. The command line performs it.
//
// It is data. Each step has a section of the same title in
// docs/how-a-container-works.md, where every claim has a command of isle and one
// of plain Linux that shows it; a test compares the two.
package tour

// Step is one lesson.
type Step struct {
	Title string
	Text  string     // before the commands
	Do    [][]string // commands of isle, without its name
	After string     // what the kernel has just done
	Ask   string     // a question
	// Answer is what it is; a reply that holds one of Right is right.
	Answer string
	Right  []string
}

// Containers of the tour.
const (
	Name   = "tour"
	Hungry = "tour-hungry"
)

// Names are the containers that the tour makes, for cleaning up after it.
func Names() []string { return []string{Name, Hungry} }

// Steps are the lessons in order.
func Steps() []Step {
	const image = "isle/base"
	run := func(args ...string) []string { return append([]string{"run", "--network", "none"}, args...) }
	return []Step{
		{
			Title: "A container is a process",
			Text:  "There is no container in the kernel. There are processes, and the kernel shows some of them\na smaller world. Here is one that does nothing but sleep.",
			Do:    [][]string{run("-d", "--name", Name, image, "sh", "-c", "sleep 100000; true"), {"explain", "--section", "process", Name}},
			After: "clone(2) made an ordinary child process. It is in the list that ps shows on this machine; the\npid namespace only gives it a second number.",
			Ask:   "Which pid does the process have, seen from inside?", Answer: "1: it is the first one born in its pid namespace, and when it ends, all others there end too.", Right: []string{"1", "one"},
		},
		{
			Title: "Namespaces: what it cannot see",
			Text:  "Each kind of thing has its own walls: processes, mounts, the network, the host name and more.\nLook first from inside, then at the numbers of the walls.",
			Do:    [][]string{{"exec", Name, "ps"}, {"exec", Name, "hostname"}, {"explain", "--section", "namespaces", Name}},
			After: "The flags CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWNET … of clone(2) built these walls. Two processes\nwith the same number in /proc/PID/ns/… are in the same namespace.",
			Ask:   "How does another program get inside, as isle exec did?", Answer: "setns(2): any process may join, if it has the right to. nsenter(1) does the same.", Right: []string{"setns", "nsenter", "join"},
		},
		{
			Title: "Control groups: what it may use",
			Text:  "Walls do not keep a process from eating all memory. A control group does: this one may have 16 MiB,\nand asks for more.",
			Do:    [][]string{run("--name", Hungry, "-m", "16m", image, "sh", "-c", "head -c 200000000 /dev/zero | tail"), {"explain", "--section", "end", Hungry}},
			After: "mkdir(2) in /sys/fs/cgroup made the group, a write(2) set the limit. At the limit the kernel first\nreclaimed, then chose a victim and sent SIGKILL.",
			Ask:   "Which exit code has a command that SIGKILL ended?", Answer: "137: 128 and the signal's number, 9.", Right: []string{"137"},
		},
		{
			Title: "Layers: where its files come from",
			Text:  "The container's root directory is layers of its image, read-only and shared, under one directory\nof its own. Write something and see where it lands.",
			Do:    [][]string{{"exec", Name, "sh", "-c", "echo mine > /written-by-the-tour"}, {"diff", Name}, {"explain", "--section", "layers", Name}},
			After: "overlayfs showed the layers as one tree. A new file goes to the upper directory; one of the image\nthat is changed is copied up first (copy-on-write), and the image stays as it was.",
			Ask:   "Where does the file go when the container is removed?", Answer: "It is gone, with the upper directory. What is to stay belongs into a volume (-v).", Right: []string{"gone", "lost", "delet", "remove", "nowhere", "volume"},
		},
		{
			Title: "Users: who root is",
			Text:  "Inside, the process is root. What that means outside the id map says.",
			Do:    [][]string{{"exec", Name, "id"}, {"explain", "--section", "users", Name}, {"explain", "--section", "credentials", Name}},
			After: "Root's power comes in parts, the capabilities, and most were dropped before execve(2). Without root\nof the machine there is a user namespace besides: root inside is you outside.",
			Ask:   "Can a set-uid program inside bring back a dropped capability?", Answer: "No: it is out of the bounding set, for good.", Right: []string{"no"},
		},
		{
			Title: "Refusals: what it may not do",
			Text:  "A container is also a list of system calls that are refused. This one tries to mount something.",
			Do:    [][]string{{"why", Name, "--", "mount", "-t", "tmpfs", "none", "/mnt"}},
			After: "A seccomp filter, a small program that the kernel runs before each system call, said no. isle then made\nthe same call itself without the filter, and with the capability, to be sure of the cause.",
			Ask:   "What would allow it, and should you?", Answer: "--cap-add SYS_ADMIN; hardly ever: it is most of root's power.", Right: []string{"cap", "admin"},
		},
		{
			Title: "The cost: a few milliseconds",
			Text:  "All of this is a short list of system calls (isle plan shows it). Here is where the time goes.",
			Do:    [][]string{run("--rm", "--timeline", image, "true")},
			After: "No machine was started, no kernel booted: a fork, some mounts, an execve. That is why there can be\nthousands, and why they all share one kernel.",
			Ask:   "What do a container and its host always share?", Answer: "The kernel. Whoever needs another one needs a virtual machine.", Right: []string{"kernel"},
		},
	}
}
