package monitor

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// insideMounts runs f in the mount namespace of a process, on a thread that ends
// with it. A mount can be cloned only by who is in its namespace (open_tree(2));
// the clone, a file, is good everywhere.
func insideMounts(pid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others afterwards
		done <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			// setns(2) refuses a thread that shares its working directory with others.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			if err := unix.Setns(raw(ns), unix.CLONE_NEWNS); err != nil {
				return os.NewSyscallError("setns", err)
			}
			return f()
		}()
	}()
	return <-done
}
