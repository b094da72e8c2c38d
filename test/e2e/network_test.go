package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/linux/netlink"
	"github.com/isle-engine/isle/internal/testenv"
)

// TestFlushedRulesComeBackUnasked: the monitor of a container that runs puts the
// packet filter back, before and after it has shrunk, without any command.
func TestFlushedRulesComeBackUnasked(t *testing.T) {
	testenv.Need(t, testenv.Root)
	bin, dir := testenv.Bin(t), testenv.Dir(t)
	// The thread is in another namespace for good: it ends with the test's goroutine.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	isle := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(bin+"/isle", args...)
		cmd.Env = append(os.Environ(), "ISLE_ROOT="+dir+"/data", "ISLE_RUNROOT="+dir+"/run")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("isle %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	web := fmt.Sprint("web-", os.Getpid()) // seen in the list of all processes
	isle("pull", "-q", "isle/base")
	isle("run", "-d", "--name", web, "-p", "18080:80", "isle/base", "sleep", "300")
	t.Cleanup(func() { isle("rm", "-f", web) })

	rt, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close() //nolint:errcheck // at the test's end
	// A store that is not the usual one has a table of its bridge's name.
	table := netlink.Table{Family: unix.NFPROTO_INET}
	if err := rt.Aliases(func(name, _ string) { table.Name = name }); err != nil || table.Name == "" {
		t.Fatalf("no bridge: %v", err)
	}
	rules := func() int {
		t.Helper()
		nf, err := netlink.Dial(unix.NETLINK_NETFILTER)
		if err != nil {
			t.Fatal(err)
		}
		defer nf.Close() //nolint:errcheck // nothing to lose
		n, err := table.Rules(nf)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	whole := rules()
	if whole == 0 {
		t.Fatal("no rules")
	}
	shrunk := func() bool { return exec.Command("pgrep", "-f", "^isle-monitor "+web+" ").Run() == nil }
	for _, when := range []string{"at once", "shrunk", "shrunk again"} {
		if when != "at once" {
			wait(t, "the monitor shrinks", shrunk)
		}
		nf, err := netlink.Dial(unix.NETLINK_NETFILTER)
		if err != nil {
			t.Fatal(err)
		}
		b := netlink.NewBatch()
		b.BeginTransaction()
		table.Delete(b)
		b.EndTransaction()
		err = nf.DoTransaction(b)
		_ = nf.Close() // nothing to lose
		if err != nil {
			t.Fatal(err)
		}
		wait(t, when+": the rules come back", func() bool { return rules() == whole })
	}
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 seconds: %s", what)
		}
	}
}
