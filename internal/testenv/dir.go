package testenv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// varBin names the directory of the binaries that end-to-end tests drive.
const varBin = "ISLE_BIN"

// magic numbers of statfs(2): file systems that do not stand for a disk.
const (
	tmpfsMagic   = 0x01021994
	overlayMagic = 0x794c7630
)

// Dir returns a new directory on a real disk, not on tmpfs or overlayfs, whose
// name is short enough for sockets below it. It is removed at the end of the
// test, whatever owners and modes its files got.
func Dir(t testing.TB) string {
	t.Helper()
	var tried error
	for _, base := range []string{os.Getenv(varDir), "/var/tmp", os.Getenv("HOME"), "."} {
		if base == "" {
			continue
		}
		var st syscall.Statfs_t
		if err := syscall.Statfs(base, &st); err != nil {
			tried = errors.Join(tried, fmt.Errorf("%s: %w", base, err))
			continue
		}
		if st.Type == tmpfsMagic || st.Type == overlayMagic {
			tried = errors.Join(tried, fmt.Errorf("%s: not on a disk", base))
			continue
		}
		dir, err := os.MkdirTemp(base, "it-")
		if err != nil {
			tried = errors.Join(tried, err)
			continue
		}
		if dir, err = filepath.Abs(dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := RemoveAll(dir); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
		return dir
	}
	t.Fatalf("no directory on a disk (set %s): %v", varDir, tried)
	return ""
}

// RemoveAll removes a tree, also one with directories that its owner may not
// enter and with files of the user's subordinate ids.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	// The error of a directory that cannot be read is not this loop's concern:
	// what stays is found by the second RemoveAll.
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	if err = os.RemoveAll(dir); err == nil || os.Getuid() == 0 {
		return err
	}
	out, err := exec.Command("unshare", "--map-root-user", "--map-auto", "--", "rm", "-rf", "--", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("remove %s as root of a user namespace: %w: %s", dir, err, out)
	}
	return nil
}

// Bin returns the directory that holds isle and isled: ISLE_BIN, or bin/ of
// this module. A test that drives them fails where they are not built.
func Bin(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(varBin)
	if dir == "" {
		root, err := ModuleRoot()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, "bin")
	}
	for _, n := range []string{"isle", "isled"} {
		if _, err := os.Stat(filepath.Join(dir, n)); err != nil {
			t.Fatalf("%v (run make first, or set %s)", err, varBin)
		}
	}
	return dir
}

// ModuleRoot returns the directory of go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}

func built() bool {
	root, err := ModuleRoot()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(root, "bin", "isle"))
	return err == nil
}

// reachableBin returns a directory of the binaries that any user can reach:
// theirs, or a copy below dir.
func reachableBin(t testing.TB, dir string) string {
	t.Helper()
	bin := Bin(t)
	open := true
	for d := bin; open && d != "/"; d = filepath.Dir(d) {
		fi, err := os.Stat(d)
		open = err == nil && fi.Mode()&0o001 != 0
	}
	if open {
		return bin
	}
	to := filepath.Join(dir, "bin")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"isle", "isled"} {
		copyFile(t, filepath.Join(bin, n), filepath.Join(to, n))
	}
	return to
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
}
