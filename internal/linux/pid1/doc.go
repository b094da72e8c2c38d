// Package pid1 carries a program of about 2 KiB, without libc, for processes
// that isle leaves behind and that shall cost nothing.
//
// It hides where the program's bytes come from and how to execute them without
// a file that a container could find or change.
//
// # What it does
//
// As init (container --init) it is PID 1 of a container: it starts the command
// in a child, forwards every signal to it, reaps every orphan, and ends with
// the command's exit code, or 128+n after signal n. The command gets a process
// group of its own, in the foreground when standard input is a terminal. A
// command that is not found gives 127, one that cannot be executed 126.
//
// As shield it stands between isle and a command that enters a container: the
// command is executed by it, so that /proc/self/exe, which the command can be a
// script for, is never isle's own file.
//
// As holder it keeps the namespaces of one user alive (package userns): it
// closes all files, leaves its session and directory, and sleeps until SIGKILL
// or SIGTERM. It occupies two pages of its own and one stack page.
//
//	argv                      meaning
//	NAME -- COMMAND [ARG...]  init
//	NAME exec FILE ARG0 [...] execute FILE with the rest as its arguments
//	NAME pause                hold the namespaces it was started in
//	NAME hold FD              wait for one byte on FD, try to change the mount
//	                          namespace, answer an errno (int32) on FD, hold
//	NAME join FD USER MNT     setns(2) to the files USER and MNT, answer, hold
//
// # Invariants
//
// The bytes come from c/pid1.c by c/build.sh, and a test compares them when the
// same compiler is there. They are executed only from a sealed memory file:
// nobody can open it for writing, so a container that reaches /proc/1/exe gets
// nothing (the attack of CVE-2019-5736).
//
// See execve(2), memfd_create(2), rt_sigtimedwait(2), pid_namespaces(7).
package pid1

//go:generate c/build.sh
