package userns

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/testenv"
)

func TestMake(t *testing.T) {
	testenv.Need(t, testenv.Root)
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 700000, Size: 1000}, {ContainerID: 1000, HostID: 5, Size: 1}}
	f, err := Make(maps, maps)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var own, st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &own); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Ino == own.Ino {
		t.Fatalf("namespace %d, own %d: %v", st.Ino, own.Ino, err)
	}
	if uid, err := unix.IoctlGetUint32(int(f.Fd()), unix.NS_GET_OWNER_UID); err != nil || uid != uint32(os.Getuid()) {
		t.Fatalf("owner %d: %v", uid, err)
	}
	if _, err := Make([]specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 0}}, maps); err == nil {
		t.Fatal("an empty map was accepted")
	}
}
