package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/seccomp"
	"github.com/isle-engine/isle/internal/testenv"
)

// overlay makes a detached overlay mount over dir.
func overlay(t testing.TB, lower, dir string) *os.File {
	t.Helper()
	for _, d := range []string{"upper", "work"} {
		_ = os.Mkdir(filepath.Join(dir, d), 0o755)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs) //nolint:errcheck // a context that was used up
	for _, kv := range [][2]string{{"lowerdir", lower}, {"upperdir", dir + "/upper"}, {"workdir", dir + "/work"}} {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "overlay")
}

// limitSpec is the container that bench/limit makes.
func limitSpec() *specs.Spec {
	s := docker("", "/bin/true")
	s.Hostname = ""
	s.Mounts = []specs.Mount{s.Mounts[0], {Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}}, s.Mounts[3]}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	return s
}

// BenchmarkRun is a whole container, overlay and all, without the start of a
// process of ours; compare `bench/limit -n`.
func BenchmarkRun(b *testing.B) {
	testenv.Need(b, testenv.Root)
	testenv.Need(b, testenv.Overlay)
	lower := rootfs(b)
	full := docker("", "/bin/true")
	full.Linux.Seccomp = seccomp.Default(dockerCaps())
	for _, c := range []struct {
		name string
		spec *specs.Spec
	}{{"docker", full}, {"limit", limitSpec()}} {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			for b.Loop() {
				root := overlay(b, lower, dir)
				p, err := Compile(c.spec, Options{Rootfs: root, Pdeathsig: true, unshielded: true})
				if err != nil {
					b.Fatal(err)
				}
				proc, err := p.Start()
				if err != nil {
					b.Fatal(err)
				}
				_ = root.Close()
				if code := reap(b, proc); code != 0 {
					b.Fatal(fmt.Errorf("exit code %d", code))
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	s := docker("/", "true")
	s.Linux.Seccomp = seccomp.Default(dockerCaps())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(s, Options{Pdeathsig: true, unshielded: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExec is a process in a container that runs; the shield is what a
// caller pays whose executable can be written to.
func BenchmarkExec(b *testing.B) {
	testenv.Need(b, testenv.Root)
	init := running(b, docker(rootfs(b)), Options{})
	for _, shield := range []bool{false, true} {
		b.Run(fmt.Sprintf("shield=%v", shield), func(b *testing.B) {
			for b.Loop() {
				proc, err := Exec(Target{Pid: init.Pid, Pidfd: init.Pidfd}, docker("", "/bin/true").Process, ExecOptions{Pdeathsig: true, unshielded: !shield})
				if err != nil {
					b.Fatal(err)
				}
				if code := reap(b, proc); code != 0 {
					b.Fatal(fmt.Errorf("exit code %d", code))
				}
			}
		})
	}
}
