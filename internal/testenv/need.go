package testenv

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Word names one thing that a test may need of the machine.
type Word string

// The words. Each has a probe in probes; a word without one fails the test.
const (
	Root              Word = "Root"              // uid 0 in the initial user namespace
	OrdinaryUser      Word = "OrdinaryUser"      // AsUser can run a test as an ordinary user
	UserNS            Word = "UserNS"            // this user may create user namespaces
	NewUIDMap         Word = "NewUIDMap"         // newuidmap, newgidmap, and a range in /etc/subuid for the ordinary user
	CgroupV1          Word = "CgroupV1"          // at least one controller on a v1 hierarchy
	CgroupV1Memory    Word = "CgroupV1Memory"    // the memory controller on v1, and may make groups there
	CgroupV2          Word = "CgroupV2"          // a v2 hierarchy is mounted, with or without controllers
	CgroupV2Delegated Word = "CgroupV2Delegated" // memory and pids on v2, in a group that this user may divide
	Overlay           Word = "Overlay"           // kernel overlayfs
	Registry          Word = "Registry"          // the docker-registry binary
	Busybox           Word = "Busybox"           // a static busybox
	Source            Word = "Source"            // the test runs in its package's directory, which it reads
	Nginx             Word = "Nginx"
	StressNG          Word = "StressNG"
	PS                Word = "PS" // procps
	CC                Word = "CC" // a C compiler
	Podman            Word = "Podman"
	Docker            Word = "Docker" // dockerd and its client
	Runc              Word = "Runc"
	Crun              Word = "Crun"
	Bwrap             Word = "Bwrap"
	Strace            Word = "Strace"
	Peers             Word = "Peers"       // podman, docker, runc and bwrap: what the benchmark compares with
	Witnesses         Word = "Witnesses"   // lsns, findmnt, nsenter, getpcaps, capsh, ip, ss: what the kernel says by others' mouths
	Browser           Word = "Browser"     // chromium
	SysResource       Word = "SysResource" // CAP_SYS_RESOURCE: may raise hard limits
)

// Variables of a lane.
const (
	varSkips  = "ISLE_TEST_SKIPS"   // file that every skip is appended to
	varExpect = "ISLE_EXPECT_SKIPS" // words that may be missing, by commas or blanks; any other skip fails
)

// probed keeps what a probe found, as machines do not change during a test run.
var probed struct {
	sync.Mutex
	reason map[Word]string
}

// met are the needs of this process's tests that are met, as marks for copies.
var met struct {
	sync.Mutex
	words []string
}

// metMark names a need of a test in varInside.
func metMark(t testing.TB, w Word) string { return "met:" + t.Name() + "=" + string(w) + " " }

// metBefore reports whether this process is a copy of the test that was made
// after it had found the need met: what a test asks of the machine it asks once,
// not again as somebody else or inside a namespace.
func metBefore(t testing.TB, w Word) bool {
	return strings.Contains(os.Getenv(varInside), metMark(t, w))
}

// Need skips the test unless the machine has everything that the words name.
// The skip is counted, and is a failure where the lane does not expect it.
func Need(t testing.TB, words ...Word) {
	t.Helper()
	for _, w := range words {
		if metBefore(t, w) {
			continue
		}
		reason := missing(t, w)
		if reason == "" {
			met.Lock()
			met.words = append(met.words, metMark(t, w))
			met.Unlock()
			continue
		}
		count(t, w, reason)
		if list, set := os.LookupEnv(varExpect); set && !slices.Contains(fields(list), string(w)) {
			t.Fatalf("needs %s: %s; this lane expects no such skip (%s=%q)", w, reason, varExpect, list)
		}
		t.Skipf("needs %s: %s", w, reason)
	}
}

// Has reports whether the machine has what w names, for a test that does less
// without it. Prefer Need: what Has leaves out is not counted.
func Has(t testing.TB, w Word) bool {
	t.Helper()
	return missing(t, w) == ""
}

// missing returns why the machine does not have w, or "".
func missing(t testing.TB, w Word) string {
	t.Helper()
	probe, known := probes()[w]
	if !known {
		t.Fatalf("testenv: unknown need %q", w)
	}
	probed.Lock()
	defer probed.Unlock()
	if reason, done := probed.reason[w]; done {
		return reason
	}
	reason := ""
	if err := probe(); err != nil {
		reason = strings.Join(strings.Fields(err.Error()), " ")
	}
	if probed.reason == nil {
		probed.reason = map[Word]string{}
	}
	probed.reason[w] = reason
	return reason
}

// count appends one line to the lane's file of skips. One write of one short
// line: O_APPEND keeps the lines of several test binaries apart.
func count(t testing.TB, w Word, reason string) {
	t.Helper()
	name := os.Getenv(varSkips)
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		t.Fatalf("count a skip: %v", err)
	}
	defer f.Close()
	_ = f.Chmod(0o666) // tests of an ordinary user add to root's file; only its owner can
	if _, err := fmt.Fprintf(f, "%s\t%s\tuid %d\t%s\n", w, t.Name(), os.Getuid(), reason); err != nil {
		t.Fatalf("count a skip: %v", err)
	}
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
}
