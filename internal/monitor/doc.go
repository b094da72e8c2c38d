// Package monitor is the small process that stays with one container: the
// parent of its PID 1, the owner of its standard streams, its log, its exit code
// and its restarts. And it is what the engine talks to it with ([Conn]).
//
// # What it hides
//
// How a container becomes a process (spec, mounts, cgroup, program), where its
// output goes, what happens when clients come, go or are killed, and in which
// order things end, so that nobody ever sees half of it.
//
// # Theory of operation
//
//	client                                  monitor (argv[0] isle-monitor)
//	  Spawn ── fork, exec ────────────────▶ Go runtime starts
//	  writes the container's directory      waits on descriptor 3
//	  Conn.Start ── 'S' id, streams ──────▶ lock, record, spec, mounts, cgroup
//	                                        fork ──────────▶ PID 1
//	             ◀── 'O' pid ────────────── state.json: running
//	                                        poll: output → log and clients,
//	                                        clients' input → container, requests
//	  Conn.Wait  ◀── 'X' exit ───────────── PID 1 is dead: drain, log, state.json,
//	                                        cgroup, mounts; --rm: everything
//
// The monitor is one loop around poll(2) on its main thread, to which it stays
// locked: the kernel kills the container (PR_SET_PDEATHSIG) when the thread that
// forked it ends. Only a client's output that cannot be written at once gets a
// goroutine, because the descriptor is shared with the user's terminal and must
// stay blocking: a client that does not read stops the container's output, as
// with Docker, but neither the control socket nor other requests.
//
// Afterwards clients find the monitor at RUN/c/ID16/sock. A client is nothing
// but a connection with descriptors: when it closes, by exit, by detach or by
// kill -9, its streams are forgotten and the container lives on.
//
// # Invariants
//
// A monitor that was told to start a container holds its lock (a byte of
// RUN/locks) from then until the container's final state is on disk. While it is held, nobody else
// writes state.json. A record that says running with the lock free is a lie left
// by kill -9 of the monitor, and the container it speaks of is dead.
//
// What a client is told has happened before: running after execve(2), exited
// after the last byte is logged, the state written and, with --rm, the container
// removed.
//
// See poll(2), unix(7), pidfd_open(2), prctl(2), pipe(7), pty(7).
package monitor
