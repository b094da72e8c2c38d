package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

const passwdFile = `root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:
daemon:*:1:1::/usr/sbin:
alice:x:1000:1000:Alice,,,:/home/alice:/bin/sh
bob:x:1001:100::/home/bob
1234:x:0:0:a number as a name:/evil:/bin/sh
short:x:5
bad:x:0x0:0::/evil:
bad2:x::0::/evil:
neg:x:-1:0::/evil:
big:x:4294967296:0::/evil:
wide:x:2147483648:0::/evil:
badgid:x:1002:x::/evil:
twin:x:1000:2000::/home/twin:
+nis:x:0:0::/evil:
nohome:x:1003:1003:::
0x0:x:0:0::/evil:
`

const groupFile = `root:x:0:root
wheel:x:10:root,alice
alice:x:1000:
users:x:100:alice,bob,alice
video:x:44
dup:x:10:alice
1000x:x:77:
4321:x:0:
badgroup:x:zero:alice
huge:x:99999999999:alice
notalice:x:60:alicette,malice
`

func TestResolveUser(t *testing.T) {
	for _, c := range []struct {
		user string
		add  []string
		want User
		err  string
	}{
		{user: "", want: User{UID: 0, GID: 0, Groups: []uint32{0, 10}, Home: "/root", Name: "root"}},
		{user: "root", want: User{UID: 0, GID: 0, Groups: []uint32{0, 10}, Home: "/root", Name: "root"}},
		{user: "0", want: User{UID: 0, GID: 0, Groups: []uint32{0, 10}, Home: "/root", Name: "root"}},
		{user: "00", want: User{UID: 0, GID: 0, Groups: []uint32{0, 10}, Home: "/root", Name: "root"}},
		{user: "alice", want: User{UID: 1000, GID: 1000, Groups: []uint32{1000, 10, 100}, Home: "/home/alice", Name: "alice"}},
		{user: "1000", want: User{UID: 1000, GID: 1000, Groups: []uint32{1000, 10, 100}, Home: "/home/alice", Name: "alice"}},
		{user: "bob", want: User{UID: 1001, GID: 100, Groups: []uint32{100}, Home: "/home/bob", Name: "bob"}},
		{user: "alice:video", want: User{UID: 1000, GID: 44, Groups: []uint32{44}, Home: "/home/alice", Name: "alice"}},
		{user: "alice:44", want: User{UID: 1000, GID: 44, Groups: []uint32{44}, Home: "/home/alice", Name: "alice"}},
		{user: "alice:5555", want: User{UID: 1000, GID: 5555, Groups: []uint32{5555}, Home: "/home/alice", Name: "alice"}},
		{user: "5000", want: User{UID: 5000, Groups: []uint32{0}, Home: "/"}},
		{user: "5000:video", want: User{UID: 5000, GID: 44, Groups: []uint32{44}, Home: "/"}},
		{user: "5000:6000", want: User{UID: 5000, GID: 6000, Groups: []uint32{6000}, Home: "/"}},
		{user: "2147483647", want: User{UID: 2147483647, Groups: []uint32{0}, Home: "/"}},
		{user: "nohome", want: User{UID: 1003, GID: 1003, Groups: []uint32{1003}, Home: "/", Name: "nohome"}},
		{user: "alice", add: []string{"video", "20", "10"}, want: User{UID: 1000, GID: 1000, Groups: []uint32{1000, 10, 100, 44, 20}, Home: "/home/alice", Name: "alice"}},
		{user: "alice:wheel", add: []string{"video"}, want: User{UID: 1000, GID: 10, Groups: []uint32{10, 44}, Home: "/home/alice", Name: "alice"}},
		{user: "alice", add: []string{"keep-groups"}, want: User{UID: 1000, GID: 1000, Groups: []uint32{1000, 10, 100}, Home: "/home/alice", Name: "alice", KeepGroups: true}},
		{user: "1000x", err: "unable to find user 1000x: no matching entries in passwd file"},
		{user: "alice:1000x", want: User{UID: 1000, GID: 77, Groups: []uint32{77}, Home: "/home/alice", Name: "alice"}},

		// A number is a number, whatever names the image has (attack 20).
		{user: "1234", want: User{UID: 1234, Groups: []uint32{0}, Home: "/"}},
		{user: "alice:4321", want: User{UID: 1000, GID: 4321, Groups: []uint32{4321}, Home: "/home/alice", Name: "alice"}},
		{user: "carol", err: "unable to find user carol: no matching entries in passwd file"},
		{user: "alice:carol", err: "unable to find group carol: no matching entries in group file"},
		{user: "alice", add: []string{"carol"}, err: "unable to find group carol: no matching entries in group file"},
		{user: "alice", add: []string{"keep-groups", "video"}, err: "keep-groups"},
		{user: "short", err: "unable to find user short"},
		{user: "bad", err: "unable to find user bad"},
		{user: "bad2", err: "unable to find user bad2"},
		{user: "neg", err: "unable to find user neg"},
		{user: "big", err: "unable to find user big"},
		{user: "wide", err: "unable to find user wide"},
		{user: "badgid", err: "unable to find user badgid"},
		{user: "alice:badgroup", err: "unable to find group badgroup"},
		{user: "alice:huge", err: "unable to find group huge"},
		{user: "comment", err: "unable to find user comment"},
		{user: "Alice", err: "unable to find user Alice"},
		{user: "-1", err: "neither"},
		{user: "+0", err: "neither"},
		{user: "+nis", err: "neither"},
		{user: "0x0", err: "decimal"},
		{user: "alice:0x0", err: "decimal"},
		{user: "0X10", err: "decimal"},
		{user: " 0", err: "invalid user"},
		{user: "0 ", err: "invalid user"},
		{user: "alice\n", err: "invalid user"},
		{user: "a/b", err: "invalid user"},
		{user: ":", err: "invalid user"},
		{user: "alice:", err: "invalid user"},
		{user: "a:b:c", err: "invalid user"},
		{user: "root:-1", err: "invalid user"},
		{user: "2147483648", err: "must be in range 0-2147483647"},
		{user: "4294967295", err: "must be in range"},
		{user: "4294967296", err: "must be in range"},
		{user: "4294967297", err: "must be in range"},
		{user: "18446744073709551616", err: "must be in range"},
		{user: "alice:2147483648", err: "must be in range"},
		{user: "alice", add: []string{"2147483648"}, err: "must be in range"},
		{user: "alice", add: []string{"-1"}, err: "unable to find group -1"},
	} {
		got, err := ResolveUser(c.user, c.add, strings.NewReader(passwdFile), strings.NewReader(groupFile))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !errors.Is(err, errs.Invalid) {
				t.Errorf("%q %q: %+v, %v, want error %q", c.user, c.add, got, err, c.err)
			}
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%q %q: %v %s", c.user, c.add, err, d)
		}
	}
}

func TestResolveUserWithoutFiles(t *testing.T) {
	for user, want := range map[string]User{
		"": {Groups: []uint32{0}, Home: "/"}, "0": {Groups: []uint32{0}, Home: "/"}, "7:8": {UID: 7, GID: 8, Groups: []uint32{8}, Home: "/"},
	} {
		for _, f := range []io.Reader{nil, strings.NewReader(""), strings.NewReader("\n\n::::\nx\n")} {
			got, err := ResolveUser(user, nil, f, f)
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Errorf("%q: %v %s", user, err, d)
			}
		}
	}
	if _, err := ResolveUser("root", nil, nil, nil); err == nil || err.Error() != "unable to find user root: no matching entries in passwd file" {
		t.Errorf("root by name, without passwd: %v", err)
	}
}

// endless gives one byte for ever.
type endless byte

func (e endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(e)
	}
	return len(b), nil
}

// TestResolveUserIsBounded: what a container writes into its files costs neither
// memory nor time without end (attack 10).
func TestResolveUserIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		passwd, group io.Reader
		err           string
	}{
		"endless line":    {passwd: endless('x'), err: "a line is longer than 1048576 bytes"},
		"endless lines":   {passwd: endless('\n'), err: "larger than 33554432 bytes"},
		"endless comment": {passwd: strings.NewReader("alice:x:1:1::/:"), group: endless('#'), err: "a line is longer"},
	} {
		_, err := ResolveUser("alice", nil, c.passwd, c.group)
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
	var big bytes.Buffer
	for i := range 70000 {
		fmt.Fprintf(&big, "g%d:x:%d:alice\n", i, i)
	}
	if _, err := ResolveUser("alice", nil, strings.NewReader(passwdFile), &big); err == nil || !strings.Contains(err.Error(), "65536") {
		t.Errorf("70000 groups: %v", err)
	}
	var many bytes.Buffer
	many.WriteString("users:x:100:")
	for i := range 100000 {
		many.WriteString("u" + strconv.Itoa(i) + ",")
	}
	many.WriteString("alice\n")
	if u, err := ResolveUser("alice", nil, strings.NewReader(passwdFile), &many); err != nil || !cmp.Equal(u.Groups, []uint32{1000, 100}) {
		t.Errorf("100000 members: %+v %v", u, err)
	}
}

// FuzzResolveUser: uid 0 comes from an empty user, from a number that is zero, or
// from a line of passwd that says so; and never from a name that is a number.
func FuzzResolveUser(f *testing.F) {
	for _, s := range []string{"", "0", "root", "alice:wheel", "-1", "+0", "0x0", " 0", "1234", "4294967296", "neg", "a:b:c", "00"} {
		f.Add(s, passwdFile, groupFile)
	}
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		u, err := ResolveUser(user, nil, strings.NewReader(passwd), strings.NewReader(group))
		if err != nil {
			return
		}
		if u.UID > container.MaxID || u.GID > container.MaxID || len(u.Groups) == 0 || u.Groups[0] != u.GID {
			t.Fatalf("%q: %+v", user, u)
		}
		name, _, _ := strings.Cut(user, ":")
		if n, err := strconv.ParseUint(name, 10, 64); err == nil && uint64(u.UID) != n {
			t.Fatalf("%q became %d", user, u.UID)
		}
		if u.UID == 0 && name != "" && strings.Trim(name, "0") != "" {
			for line := range strings.Lines(passwd) {
				p := strings.Split(strings.TrimSpace(line), ":")
				if len(p) >= 4 && p[0] == name && p[2] != "" && strings.Trim(p[2], "0") == "" {
					return
				}
			}
			t.Fatalf("%q became root", user)
		}
	})
}

func BenchmarkResolveUser(b *testing.B) {
	for b.Loop() {
		if _, err := ResolveUser("", nil, strings.NewReader(passwdFile), strings.NewReader(groupFile)); err != nil {
			b.Fatal(err)
		}
	}
}
