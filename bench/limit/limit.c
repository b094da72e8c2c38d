// limit makes a container by the least that can be called one: the system calls
// and nothing else, in static C. It is what `isle run` is compared with; nothing
// that makes the same calls can be faster.
//
// usage: limit LOWER DIR PROGRAM [ARG...]
//
// LOWER is an unpacked image (several, separated by colons), DIR an empty
// directory that gets upper, work and merged; PROGRAM a path inside. The exit
// code is PROGRAM's. With -n N before the arguments it does so N times.
//
// build: cc -O2 -static -o limit limit.c
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(long r, const char *what) {
	if (r < 0) {
		fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static char options[8192], *merged;
static char **command;

static void child(void) {
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
	check(mount("overlay", merged, "overlay", 0, options), "mount overlay");
	check(chdir(merged), "chdir");
	check(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount proc");
	check(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL), "mount sysfs");
	check(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "mount tmpfs");
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount old root");
	check(chdir("/"), "chdir /");
	execve(command[0], command, (char *[]){"PATH=/usr/bin:/bin", NULL});
	check(-1, command[0]);
}

int main(int argc, char **argv) {
	int rounds = 1, status = 0;
	if (argc > 2 && strcmp(argv[1], "-n") == 0) {
		rounds = atoi(argv[2]);
		argv += 2, argc -= 2;
	}
	if (argc < 4) {
		fprintf(stderr, "usage: limit [-n ROUNDS] LOWER DIR PROGRAM [ARG...]\n");
		return 125;
	}
	char *dir = argv[2];
	command = argv + 3;
	static char path[4096];
	const char *parts[] = {"upper", "work", "merged"};
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, parts[i]);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			check(-1, path);
	}
	merged = path;
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", argv[1], dir, dir);
	for (int i = 0; i < rounds; i++) {
		long flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | SIGCHLD;
		long pid = syscall(SYS_clone, flags, 0, 0, 0, 0);
		check(pid, "clone");
		if (pid == 0)
			child();
		check(waitpid(pid, &status, 0), "wait");
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
