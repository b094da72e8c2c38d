// A process that needs no libc, in a few trades.
//
//   NAME pause                 hold the namespaces this process is in, for ever
//   NAME hold  FD              the same, in a new user and mount namespace: wait
//                              for one byte from FD (the id maps are written),
//                              try the mount namespace, answer an errno on FD
//   NAME join  FD USER MNT     the same, after setns to the two files
//                              and an errno on FD
//   NAME -- COMMAND [ARG...]   be init: run COMMAND, forward signals, reap
//   NAME exec FILE ARG0 [...]  become FILE
//
// See doc.go. It must stay below 4 KiB, so: no tables, no strings beyond need.

typedef unsigned long ulong;
typedef long sl;

#if defined(__x86_64__)
enum { NR_read = 0, NR_write = 1, NR_rt_sigaction = 13, NR_rt_sigprocmask = 14, NR_ioctl = 16,
       NR_getpid = 39, NR_clone = 56, NR_execve = 59, NR_exit = 60, NR_wait4 = 61, NR_kill = 62,
       NR_chdir = 80, NR_setpgid = 109, NR_setsid = 112, NR_rt_sigtimedwait = 128, NR_prctl = 157,
       NR_mount = 165, NR_exit_group = 231, NR_ppoll = 271, NR_setns = 308, NR_close_range = 436 };
static inline sl call5(sl n, sl a, sl b, sl c, sl d, sl e)
{
	sl r;
	register sl r10 __asm__("r10") = d;
	register sl r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return r;
}
__asm__(".globl _start\n.type _start,@function\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall run\n\thlt\n");
#elif defined(__aarch64__)
enum { NR_read = 63, NR_write = 64, NR_rt_sigaction = 134, NR_rt_sigprocmask = 135, NR_ioctl = 29,
       NR_getpid = 172, NR_clone = 220, NR_execve = 221, NR_exit = 93, NR_wait4 = 260, NR_kill = 129,
       NR_chdir = 49, NR_setpgid = 154, NR_setsid = 157, NR_rt_sigtimedwait = 137, NR_prctl = 167,
       NR_mount = 40, NR_exit_group = 94, NR_ppoll = 73, NR_setns = 268, NR_close_range = 436 };
static inline sl call5(sl n, sl a, sl b, sl c, sl d, sl e)
{
	register sl x8 __asm__("x8") = n;
	register sl x0 __asm__("x0") = a;
	register sl x1 __asm__("x1") = b;
	register sl x2 __asm__("x2") = c;
	register sl x3 __asm__("x3") = d;
	register sl x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory", "cc");
	return x0;
}
__asm__(".globl _start\n.type _start,%function\n_start:\n\tmov x29,#0\n\tmov x30,#0\n\tmov x0,sp\n\tbl run\n\tbrk #1\n");
#else
#error "no system call numbers for this machine"
#endif

#define C0(n) call5(n, 0, 0, 0, 0, 0)
#define C1(n, a) call5(n, (sl)(a), 0, 0, 0, 0)
#define C2(n, a, b) call5(n, (sl)(a), (sl)(b), 0, 0, 0)
#define C3(n, a, b, c) call5(n, (sl)(a), (sl)(b), (sl)(c), 0, 0)
#define C4(n, a, b, c, d) call5(n, (sl)(a), (sl)(b), (sl)(c), (sl)(d), 0)
#define C5(n, a, b, c, d, e) call5(n, (sl)(a), (sl)(b), (sl)(c), (sl)(d), (sl)(e))

enum { ENOENT = 2, EINTR = 4, ENOEXEC = 8, EACCES = 13, ENOTDIR = 20 };
enum { SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGSEGV = 11, SIGTERM = 15,
       SIGCHLD = 17, SIGTTIN = 21, SIGTTOU = 22, SIGSYS = 31 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2, WNOHANG = 1, TIOCSPGRP = 0x5410 };
enum { PR_SET_NAME = 15, PR_SET_CHILD_SUBREAPER = 36, MS_REC = 0x4000, MS_SLAVE = 0x80000 };
#define CLONE_NEWNS 0x20000L
#define CLONE_NEWUSER 0x10000000L
#define BIT(s) (1UL << ((s) - 1))

static ulong length(const char *s)
{
	ulong n = 0;
	while (s[n]) {
		n++;
		__asm__ volatile(""); // or gcc makes this a call of strlen
	}
	return n;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static sl number(const char *s)
{
	sl n = 0;
	while (*s >= '0' && *s <= '9')
		n = n * 10 + (*s++ - '0');
	return n;
}

static void say(const char *s) { C3(NR_write, 2, s, length(s)); }

__attribute__((noreturn)) static void quit(int code)
{
	for (;;)
		C1(NR_exit_group, code);
}

// settle makes this process one that nothing but SIGKILL and SIGTERM ends, with
// no session and no directory of anybody's.
static void settle(const char *name)
{
	ulong mask = ~BIT(SIGTERM);
	C4(NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8);
	C2(NR_prctl, PR_SET_NAME, name);
	C0(NR_setsid);
	C1(NR_chdir, "/");
}

// hold keeps this process, and with it its namespaces, for ever. It keeps no
// file.
__attribute__((noreturn)) static void hold(void)
{
	C3(NR_close_range, 0, ~0U, 0);
	for (;;)
		C5(NR_ppoll, 0, 0, 0, 0, 0);
}

// report answers the one who waits at fd: 4 bytes, the errno or 0.
static void report(sl fd, sl r)
{
	int e = r < 0 ? (int)-r : 0;
	C3(NR_write, fd, &e, 4);
	if (e)
		quit(1);
}

// try executes one file; a script without #! goes to the shell, as execvp(3) does.
static sl try(const char *path, char **argv, char **envp)
{
	sl r = C3(NR_execve, path, argv, envp);
	if (r == -ENOEXEC) {
		ulong n = 0;
		while (argv[n])
			n++;
		char *sh[n + 2];
		sh[0] = "/bin/sh";
		sh[1] = (char *)path;
		for (ulong i = 1; i <= n; i++)
			sh[i + 1] = argv[i];
		C3(NR_execve, "/bin/sh", sh, envp);
	}
	return r;
}

// search runs argv[0] as execvp(3) would and returns the error that a shell
// would report: a file found but not executable beats one not found.
static sl search(char **argv, char **envp)
{
	const char *name = argv[0];
	if (!*name)
		return -ENOENT;
	for (const char *s = name; *s; s++)
		if (*s == '/')
			return try(name, argv, envp);
	const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	for (char **e = envp; *e; e++)
		if ((*e)[0] == 'P' && (*e)[1] == 'A' && (*e)[2] == 'T' && (*e)[3] == 'H' && (*e)[4] == '=')
			path = *e + 5;
	sl err = -ENOENT;
	char file[4096];
	for (;; path++) {
		ulong n = 0, i = 0;
		while (*path && *path != ':') {
			if (n < sizeof file - 1)
				file[n++] = *path;
			path++;
		}
		if (n)
			file[n++] = '/'; // n is at most sizeof file - 1 here
		while (name[i] && n + 1 < sizeof file)
			file[n++] = name[i++];
		if (!name[i]) {
			file[n] = 0;
			sl r = try(file, argv, envp);
			if (r == -EACCES)
				err = r;
			else if (r != -ENOENT && r != -ENOTDIR)
				return r;
		}
		if (!*path)
			return err;
	}
}

// refuse ends a process that could not execute name, with the shell's exit codes.
__attribute__((noreturn)) static void refuse(const char *who, const char *name, sl r)
{
	int missing = r == -ENOENT || r == -ENOTDIR;
	say(who);
	say(name);
	say(missing ? ": not found\n" : r == -EACCES ? ": permission denied\n" : ": cannot be executed\n");
	quit(missing ? 127 : 126);
}

// cannot says what other runtimes say of a file that was found and cannot be
// executed: the interpreter that it names may be what is missing.
__attribute__((noreturn)) static void cannot(const char *name, sl r)
{
	say("exec ");
	say(name);
	say(r == -ENOENT    ? ": no such file or directory\n"
	    : r == -ENOTDIR ? ": not a directory\n"
	    : r == -EACCES  ? ": permission denied\n"
	    : r == -ENOEXEC ? ": exec format error\n"
			    : ": cannot be executed\n");
	quit(r == -ENOENT || r == -ENOTDIR ? 127 : 126);
}

__attribute__((noreturn)) static void init(char **argv, char **envp)
{
	// Faults of our own must not be blocked: the kernel kills a process that
	// faults with the signal blocked, and the mask is the child's, too.
	ulong all = ~(BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGABRT) | BIT(SIGTRAP) | BIT(SIGSYS));
	ulong old = 0, dfl[4] = { 0, 0, 0, 0 };
	// An ignored SIGCHLD would be inherited from who started us, and then the
	// kernel reaps by itself and never tells.
	C4(NR_rt_sigaction, SIGCHLD, dfl, 0, 8);
	C4(NR_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	if (C0(NR_getpid) != 1) // --pid host or another container's: orphans come here all the same
		C2(NR_prctl, PR_SET_CHILD_SUBREAPER, 1);

	sl child = C5(NR_clone, SIGCHLD, 0, 0, 0, 0);
	if (child < 0) {
		say("init: fork\n");
		quit(125);
	}
	if (child == 0) {
		// A foreground process group of its own, so that ^C and ^Z reach the
		// command by the terminal and not twice. SIGTTOU is still blocked:
		// else a background group that calls this would be stopped.
		C2(NR_setpgid, 0, 0);
		int pgrp = (int)C0(NR_getpid);
		C3(NR_ioctl, 0, TIOCSPGRP, &pgrp);
		C4(NR_rt_sigprocmask, SIG_SETMASK, &old, 0, 8);
		refuse("init: ", argv[0], search(argv, envp));
	}
	for (;;) {
		sl sig = C4(NR_rt_sigtimedwait, &all, 0, 0, 8);
		if (sig < 0)
			continue; // EINTR: stopped and continued
		if (sig != SIGCHLD) {
			// The command's terminal stops are not ours.
			if (sig != SIGTTIN && sig != SIGTTOU)
				C2(NR_kill, child, sig);
			continue;
		}
		// One SIGCHLD stands for any number of children.
		int code = -1;
		for (;;) {
			int st;
			sl pid = C4(NR_wait4, -1, &st, WNOHANG, 0);
			if (pid <= 0)
				break;
			if (pid == child)
				code = st & 0x7f ? 128 + (st & 0x7f) : st >> 8 & 0xff;
		}
		if (code >= 0)
			quit(code); // the kernel ends what is left in the pid namespace
	}
}

__attribute__((used, noreturn)) void run(sl *stack)
{
	sl argc = stack[0];
	char **argv = (char **)(stack + 1);
	char **envp = argv + argc + 1;
	if (argc >= 3 && same(argv[1], "hold")) {
		sl fd = number(argv[2]);
		char go;
		sl n;
		while ((n = C3(NR_read, fd, &go, 1)) == -EINTR)
			;
		if (n != 1)
			quit(1); // the one who makes the namespace died
		settle(argv[0]);
		report(fd, C5(NR_mount, 0, "/", 0, MS_REC | MS_SLAVE, 0));
		hold();
	}
	if (argc >= 5 && same(argv[1], "join")) {
		sl fd = number(argv[2]);
		sl r = C2(NR_setns, number(argv[3]), CLONE_NEWUSER);
		if (r == 0)
			r = C2(NR_setns, number(argv[4]), CLONE_NEWNS);
		settle(argv[0]);
		report(fd, r);
		hold();
	}
	if (argc >= 2 && same(argv[1], "pause")) {
		settle(argv[0]);
		hold();
	}
	if (argc >= 4 && same(argv[1], "exec"))
		cannot(argv[2], C3(NR_execve, argv[2], argv + 3, envp));
	if (argc >= 3 && same(argv[1], "--"))
		init(argv + 2, envp);
	say("init: no command\n");
	quit(125);
}
