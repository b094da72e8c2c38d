// Package config knows isle's own directories and settings: where state and
// data live for root and for an ordinary user, and which environment variables
// and files change that.
//
// A role that runs inside the user's own user namespace is uid 0 there; it must
// not work out the directories from its uid, so the process that starts it
// passes them on (Env.Environ), together with the real ids.
package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
)

// Env is where one user's isle keeps its things and who that user is.
type Env struct {
	Data string // images, layers, containers, volumes: survives a reboot
	Run  string // sockets, locks, the user namespace's holder: emptied by a reboot
	// Rootless is true when the user is not the host's root, also inside the
	// user's own user namespace.
	Rootless bool
	UID, GID int // the caller's ids in the namespace where isle was called
	Home     string
}

// Variables that carry an Env into a child process that may run in a user namespace.
const (
	varData = "ISLE_ROOT"
	varRun  = "ISLE_RUNROOT"
	varIDs  = "_ISLE_IDS"
	// varExe is the path of the isle that was called: a role that is executed
	// through a private mount cannot see it.
	varExe = "_ISLE_EXE"
)

// Load works out the Env of the calling process from its ids and environment:
// ISLE_ROOT and ISLE_RUNROOT if set; else /var/lib/isle and /run/isle for root,
// $XDG_DATA_HOME/isle (~/.local/share/isle) and $XDG_RUNTIME_DIR/isle for an
// ordinary user, with /tmp/isle-UID in place of a missing runtime directory
// (su, cron and ssh without a session leave it out). It creates nothing.
func Load() (Env, error) {
	e := Env{UID: os.Getuid(), GID: os.Getgid()}
	if ids := os.Getenv(varIDs); ids != "" {
		if _, err := fmt.Sscanf(ids, "%d:%d", &e.UID, &e.GID); err != nil {
			return e, errs.New(errs.Invalid, "%s=%q: %w", varIDs, ids, err)
		}
	}
	e.Rootless = e.UID != 0
	e.Home = os.Getenv("HOME")
	e.Data, e.Run = os.Getenv(varData), os.Getenv(varRun)
	if !e.Rootless {
		if e.Data == "" {
			e.Data = "/var/lib/isle"
		}
		if e.Run == "" {
			e.Run = "/run/isle"
		}
	}
	if e.Data == "" {
		d := os.Getenv("XDG_DATA_HOME")
		if !filepath.IsAbs(d) {
			if !filepath.IsAbs(e.Home) {
				return e, errs.Hint(errs.New(errs.Invalid, "HOME=%q: not an absolute path", e.Home), "set HOME, or ISLE_ROOT to the directory that isle shall keep its data in")
			}
			d = filepath.Join(e.Home, ".local", "share")
		}
		e.Data = filepath.Join(d, "isle")
	}
	if e.Run == "" {
		if d := os.Getenv("XDG_RUNTIME_DIR"); ownDir(d, e.UID) {
			e.Run = filepath.Join(d, "isle")
		} else if d = "/run/user/" + strconv.Itoa(e.UID); ownDir(d, e.UID) {
			// su and sudo drop or keep the variable of somebody else.
			e.Run = filepath.Join(d, "isle")
		} else {
			e.Run = "/tmp/isle-" + strconv.Itoa(e.UID)
		}
	}
	for _, d := range []string{e.Data, e.Run} {
		if !filepath.IsAbs(d) {
			return e, errs.New(errs.Invalid, "directory %q: not an absolute path", d)
		}
	}
	return e, nil
}

// ownDir reports whether dir is a directory that belongs to uid: an
// XDG_RUNTIME_DIR kept by su or sudo is another user's.
func ownDir(dir string, uid int) bool {
	if dir == "" {
		return false
	}
	fi, err := os.Stat(dir)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

// Environ returns base without isle's own variables, and with those that make
// Load give the same Env in a child, whatever its uid looks like there.
func (e Env) Environ(base []string) []string {
	out := make([]string, 0, len(base)+4)
	for _, kv := range base {
		switch k, _, _ := strings.Cut(kv, "="); k {
		case varData, varRun, varIDs, varExe:
		default:
			out = append(out, kv)
		}
	}
	if exe := executable(); exe != "" {
		out = append(out, varExe+"="+exe)
	}
	return append(out, varData+"="+e.Data, varRun+"="+e.Run, fmt.Sprintf("%s=%d:%d", varIDs, e.UID, e.GID))
}

// executable is the path of the isle that was called.
func executable() string {
	if exe := os.Getenv(varExe); exe != "" {
		return exe
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return ""
	}
	return exe
}

// Isled returns the path of the second binary: beside the isle that was called,
// or where `make install` puts it.
func Isled() (string, error) {
	exe := executable()
	dir := filepath.Dir(exe)
	for _, p := range [...]string{dir + "/isled", filepath.Dir(dir) + "/libexec/isle/isled", filepath.Dir(dir) + "/lib/isle/isled"} {
		if syscall.Access(p, 1) == nil { // X_OK
			return p, nil
		}
	}
	return "", errs.Hint(errs.New(errs.NotFound, "isled: not found beside %s", exe), "isled comes with isle: run make, or make install")
}

// Paths below Data and Run. One line each, so that the layout is in one place;
// docs/design.md draws it.
func (e Env) Images() string                { return e.Data + "/images" }
func (e Env) Layers() string                { return e.Data + "/layers" }
func (e Env) Containers() string            { return e.Data + "/containers" }
func (e Env) Container(id string) string    { return e.Data + "/containers/" + id }
func (e Env) Names() string                 { return e.Data + "/names" }
func (e Env) Volumes() string               { return e.Data + "/volumes" }
func (e Env) Networks() string              { return e.Data + "/networks" }
func (e Env) EventLog() string              { return e.Data + "/events/log" }
func (e Env) Tmp() string                   { return e.Data + "/tmp" }
func (e Env) RunContainer(id string) string { return e.Run + "/c/" + id[:min(len(id), 16)] }
func (e Env) UserNS() string                { return e.Run + "/userns" }

// private is the mode of every directory of isle: other users cannot pass, so
// that set-uid files of images are out of their reach (CVE-2021-41091).
func private() os.FileMode {
	if defence.Removed("modes") {
		return 0o755
	}
	return 0o700
}

// MakeDirs creates the directories, private to the user, and refuses a runtime
// directory in a shared place that somebody else made first.
func (e Env) MakeDirs() error {
	for _, d := range []string{e.Data, e.Run} {
		if err := os.MkdirAll(d, private()); err != nil {
			return err
		}
	}
	fi, err := os.Lstat(e.Run)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.IsDir() || !ok || int(st.Uid) != os.Getuid() || fi.Mode().Perm()&^private() != 0 {
		return errs.Hint(errs.New(errs.Denied, "runtime directory %q: not a private directory of this user", e.Run),
			"remove it, or set ISLE_RUNROOT to another directory")
	}
	for _, d := range []string{e.Images(), e.Layers(), e.Containers(), e.Names(), e.Volumes(), e.Networks(), e.Tmp(), e.Run + "/c"} {
		if err := os.Mkdir(d, private()); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}
