package pid1

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Seals make the file's content and size final, and the seals themselves.
const Seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Image is the program, for whoever makes such a file by other means.
func Image() string { return program }

// MemFD returns the program as a sealed, executable memory file, to be executed
// by execveat(2) or by its name in /proc/self/fd. The caller closes it.
func MemFD() (*os.File, error) { return memFD(unix.MFD_EXEC) }

func memFD(execFlag int) (*os.File, error) {
	const base = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("isle-pid1", base|execFlag)
	if err == unix.EINVAL {
		// Linux < 6.3 does not know MFD_EXEC; there every memory file may be
		// executed. Drop when kernel-support.md drops 6.2.
		fd, err = unix.MemfdCreate("isle-pid1", base)
	}
	if err != nil {
		err = fmt.Errorf("memfd_create isle-pid1: %w", err)
		if noexec() {
			err = errs.Hint(err, "this machine forbids programs in memory; as root: sysctl vm.memfd_noexec=1")
		}
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "isle-pid1")
	if _, err = f.WriteString(program); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, Seals)
	}
	if err != nil {
		_ = f.Close() // the first error says why
		return nil, fmt.Errorf("write isle-pid1: %w", err)
	}
	return f, nil
}

// noexec reports whether vm.memfd_noexec refuses every executable memory file.
func noexec() bool {
	b, err := os.ReadFile("/proc/sys/vm/memfd_noexec")
	return err == nil && strings.TrimSpace(string(b)) == "2"
}
