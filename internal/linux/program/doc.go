// Package program turns a list of system calls into a process.
//
// A [Program] is data: calls, their arguments, what to do with each result and
// with each errno. It is built in ordinary Go, can be printed call by call as
// strace(1) would, and is then run: the calls before Fork by the calling
// thread, the calls after it by a forked child that is this same binary with
// the Go runtime standing still. The child interprets the list with raw system
// calls, never allocates, and ends in execve(2).
//
// # What it hides
//
// The fork of a multi-threaded Go process (signals, stack growth, memory that
// must not move), clone3 and its absence, the second clone that joining a pid
// namespace takes, file descriptors that must survive or must not, and the
// conversation between the two sides.
//
// # Theory of operation
//
//	parent                                   child
//	  calls before Fork
//	  clone3(flags) ───────────────────────▶ signals to default, mask empty
//	  Meanwhile functions, each followed by   calls …
//	  a token ── 'G' ──────────────────────▶ Await
//	  Sync function ◀── 'S' ─────────────── Sync, reply read into a buffer
//	                 ── 'A' ──────────────▶
//	  warning kept  ◀── 'W' ──────────────── an errno that only deserves a remark
//	  file kept     ◀── 'F' + SCM_RIGHTS ─── SendFile
//	  pid replaced  ◀── 'P' ──────────────── Reclone: the first child ends here
//	  Start returns ◀── 'R' ──────────────── Ready: it will wait for a gate
//	  CallError     ◀── 'E' ──────────────── an errno nobody expected
//	  success       ◀── end of file ──────── execve closed the socket
//
// Memory: every string, array and buffer lives in one byte slice and is
// referred to by offset; Start copies it and relocates the pointers inside, so
// that a Program is position independent and can be started more than once.
// Results go to slots, which arguments of later calls name.
//
// # Invariants
//
// Between clone and execve the child runs only functions marked nosplit, on a
// stack whose bound the linker has checked, and it stores no Go pointers: it may
// be running on the caller's memory (Clone.Share).
// Every file descriptor that the child opens is close-on-exec. A child that
// loses its parent meets end of file at the next Await or Sync and exits.
//
// Pages: clone(2), setns(2), openat2(2), mount_setattr(2), unix(7), and
// runtime.BeforeFork in Go's own syscall package, which does the same for os/exec.
package program
