package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
)

// The network scenario has a host and a neighbour of its own, in namespaces:
//
//	neighbour 10.98.0.2 ══ 10.98.0.1 host ── container
//
// In is from the neighbour to a published port, out from the container to the
// neighbour. Nothing leaves the machine.
const (
	netHost, netPeer = "10.98.0.1", "10.98.0.2"
	netPort          = 5201 // of iperf3 at the neighbour and in the containers
	netRR            = 5202 // of the request-response server
)

// varRR makes the benchmark the server or a client of the latency measurement.
const varRR = "ISLE_BENCH_RR"

// way is one way to connect a container.
type way struct {
	name   string
	port   int                            // published for iperf3; the next one for netRR
	inside func(args ...string) *exec.Cmd // a command in the container
	start  func(mtu int) (stop func(), err error)
}

type netLab struct {
	b          *bench
	host, peer string // namespaces
	exe        string // of the benchmark, for everybody
}

func (l *netLab) in(ns string, user *testenv.User, env []string, args ...string) *exec.Cmd {
	argv := []string{"--net=" + ns}
	if user != nil {
		argv = append(argv, "setpriv", fmt.Sprint("--reuid=", user.UID), fmt.Sprint("--regid=", user.GID), "--clear-groups", "--inh-caps=-all")
	}
	cmd := exec.Command("nsenter", append(argv, args...)...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, env...)
	cmd.Dir = "/"
	return cmd
}

func network(ctx context.Context, b *bench) error {
	for _, tool := range []string{"iperf3", "ip", "nsenter", "setpriv"} {
		if _, err := testenv.LookTool(tool); err != nil {
			b.report.printf("not measured: %v\n", err)
			return nil
		}
	}
	l, err := newNetLab(b)
	if err != nil {
		return err
	}
	if err := l.starts(ctx); err != nil {
		return err
	}
	ways, err := l.ways()
	if err != nil {
		return err
	}
	rates := map[string]float64{}
	for _, mtu := range []int{1500, 65520} {
		if err := l.measure(ctx, ways, mtu, rates); err != nil {
			return err
		}
	}
	has := func(name string) bool { return rates[name+" in 1500 1"] > 0 }
	for _, dir := range []string{"in", "out"} {
		at := func(name string, mtu int) float64 { return rates[fmt.Sprintf("%s %s %d 1", name, dir, mtu)] }
		if has("docker") {
			b.report.promise("isle "+dir+" to docker, MTU 1500", at("isle", 1500)/at("docker", 1500), "×", 1, false)
		}
		if has("pasta") {
			for _, mtu := range []int{1500, 65520} {
				b.report.promise(fmt.Sprintf("isle rootless %s to pasta, MTU %d", dir, mtu), at("isle rootless", mtu)/at("pasta", mtu), "×", 1, false)
			}
		}
		if has("slirp4netns") {
			b.report.promise("isle rootless "+dir+" to slirp4netns, MTU 1500", at("isle rootless", 1500)/at("slirp4netns", 1500), "×", 5, false)
		}
	}
	return nil
}

// starts: a container on the default network, beside one without.
func (l *netLab) starts(ctx context.Context) error {
	var all []contender
	for _, p := range l.b.peers {
		for _, mode := range []string{"none", "bridge"} {
			if p.name == "docker" && mode == "bridge" {
				continue // ours has no bridge: it would be the host's
			}
			all = append(all, contender{p.name + " " + mode, func() *exec.Cmd {
				args := append(append([]string{}, p.argv...), p.runArgs([]string{"--rm", "--network", mode}, l.b.image(), "true")...)
				return l.in(l.host, p.user, p.env, args...)
			}})
		}
	}
	got, err := race(ctx, min(l.b.rounds, 31)/3, all)
	if err != nil {
		return err
	}
	l.b.report.table(all, got, "isle none")
	l.b.report.promise("isle run with the default network to none", ratio(got["isle bridge"].median(), got["isle none"].median()), "×", 2, true)
	if f, ok := got["podman bridge"]; ok {
		l.b.report.promise("podman to isle run with the default network", ratio(f.median(), got["isle bridge"].median()), "×", 25, false)
	}
	return nil
}

func newNetLab(b *bench) (*netLab, error) {
	dir, err := b.sub("net")
	if err != nil {
		return nil, err
	}
	l := &netLab{b: b, host: dir + "/host", peer: dir + "/peer", exe: dir + "/bench"}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if _, err := output("cp", self, l.exe); err != nil {
		return nil, err
	}
	for _, ns := range []string{l.host, l.peer} {
		if err := os.WriteFile(ns, nil, 0o600); err != nil {
			return nil, err
		}
		if _, err := output("unshare", "--net="+ns, "true"); err != nil {
			return nil, err
		}
		b.later(func() { _ = syscall.Unmount(ns, syscall.MNT_DETACH) })
	}
	for _, s := range []struct{ ns, cmd string }{
		{l.host, "ip link add ext type veth peer name far"},
		{l.host, "ip link set far netns " + l.peer},
		{l.host, "ip link set lo up"},
		{l.host, "ip link set ext up mtu 65520"},
		{l.host, "ip addr add " + netHost + "/24 dev ext"},
		{l.peer, "ip link set lo up"},
		{l.peer, "ip link set far up mtu 65520"},
		{l.peer, "ip addr add " + netPeer + "/24 dev far"},
		{l.host, "ip route add default via " + netPeer},
	} {
		if _, err := outputOf(l.in(s.ns, nil, nil, strings.Fields(s.cmd)...)); err != nil {
			return nil, err
		}
	}
	for _, cmd := range [][]string{{"iperf3", "-s", "-p", strconv.Itoa(netPort)}, {"env", varRR + "=server", l.exe}} {
		if err := l.background(l.in(l.peer, nil, nil, cmd...)); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// background starts a command that lives until the benchmark's end.
func (l *netLab) background(cmd *exec.Cmd) error {
	_, err := l.started(cmd)
	return err
}

func (l *netLab) started(cmd *exec.Cmd) (stop func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := false
	stop = func() {
		if !done {
			done = true
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait() // ended by our signal
		}
	}
	l.b.later(stop)
	return stop, nil
}

// hostDirs lets containers use the host's iperf3.
var hostDirs = []string{"/usr", "/lib", "/lib64"}

// ways are isle's and the peers' that are installed.
func (l *netLab) ways() ([]way, error) {
	all := []way{l.veth()}
	for i, name := range []string{"isle", "isle rootless"} {
		if p := l.b.peer(name); p != nil {
			all = append(all, l.engine(p, 5300+10*i))
		}
	}
	user, err := testenv.TestUser()
	if err != nil {
		return all, nil //nolint:nilerr // the report has said so
	}
	if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err == nil {
		_ = f.Close()
		// pasta and slirp4netns need a device that some machines keep for root;
		// there they run as root of a user namespace.
		if _, err := testenv.LookTool("pasta"); err == nil {
			all = append(all, l.pasta(&user, 5400))
		}
		if _, err := testenv.LookTool("slirp4netns"); err == nil {
			all = append(all, l.slirp(5500))
		}
	}
	return all, nil
}

// server is what runs in each container: iperf3 and the latency server.
func (l *netLab) server() string {
	return fmt.Sprintf("%s=server %s & exec iperf3 -s -p %d", varRR, l.exe, netPort)
}

// veth is a namespace with nothing in between: the limit.
func (l *netLab) veth() way {
	ns := l.host + "-veth"
	return way{name: "veth", inside: func(args ...string) *exec.Cmd { return l.in(ns, nil, nil, args...) }, start: func(mtu int) (func(), error) {
		if err := os.WriteFile(ns, nil, 0o600); err != nil {
			return nil, err
		}
		if _, err := output("unshare", "--net="+ns, "true"); err != nil {
			return nil, err
		}
		stop, err := func() (func(), error) {
			for _, s := range []struct{ ns, cmd string }{
				{l.host, fmt.Sprint("ip link add v0 mtu ", mtu, " type veth peer name v1 mtu ", mtu)},
				{l.host, "ip link set v1 netns " + ns},
				{l.host, "ip link set v0 up"},
				{l.host, "ip addr add 10.97.0.1/24 dev v0"},
				{ns, "ip link set lo up"},
				{ns, "ip link set v1 up"},
				{ns, "ip addr add 10.97.0.2/24 dev v1"},
				{ns, "ip route add default via 10.97.0.1"},
				{l.host, "sysctl -qw net.ipv4.ip_forward=1"},
				{l.peer, "ip route replace 10.97.0.0/24 via " + netHost},
			} {
				if _, err := outputOf(l.in(s.ns, nil, nil, strings.Fields(s.cmd)...)); err != nil {
					return nil, err
				}
			}
			return l.started(l.in(ns, nil, nil, "sh", "-c", l.server()))
		}()
		return func() {
			if stop != nil {
				stop()
			}
			_ = syscall.Unmount(ns, syscall.MNT_DETACH)
		}, err
	}}
}

// engine is a container of isle's.
func (l *netLab) engine(p *peer, port int) way {
	do := func(args ...string) *exec.Cmd {
		return l.in(l.host, p.user, p.env, append(append([]string{}, p.argv...), args...)...)
	}
	return way{name: p.name, port: port, inside: func(args ...string) *exec.Cmd { return do(append([]string{"exec", "net"}, args...)...) }, start: func(mtu int) (func(), error) {
		if _, err := outputOf(do("network", "create", "-o", "mtu="+strconv.Itoa(mtu), "bench")); err != nil {
			return nil, err
		}
		args := []string{"-d", "--name", "net", "--network", "bench"}
		for i, inner := range []int{netPort, netRR} {
			for _, proto := range []string{"tcp", "udp"} {
				args = append(args, "-p", fmt.Sprintf("%d:%d/%s", port+i, inner, proto))
			}
		}
		for _, d := range append(hostDirs, filepath.Dir(l.exe)) {
			args = append(args, "-v", d+":"+d+":ro")
		}
		_, err := outputOf(do(p.runArgs(args, l.b.image(), "sh", "-c", l.server())...))
		return func() {
			_, e1 := outputOf(do("rm", "-f", "net"))
			_, e2 := outputOf(do("network", "rm", "bench"))
			if err := errors.Join(e1, e2); err != nil {
				fmt.Fprintln(os.Stderr, "bench: clean up:", err)
			}
		}, err
	}}
}

// pasta runs the server in its namespace; its other end is found by the process.
func (l *netLab) pasta(user *testenv.User, port int) way {
	pid := 0
	return way{name: "pasta", port: port, inside: func(args ...string) *exec.Cmd {
		return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(pid), "-U", "-n", "--preserve-credentials"}, args...)...)
	}, start: func(mtu int) (func(), error) {
		fix := tunForAll()
		ports := fmt.Sprintf("%d:%d,%d:%d", port, netPort, port+1, netRR)
		stop, err := l.started(l.in(l.host, user, nil, "pasta", "--config-net", "-m", strconv.Itoa(mtu), "-f", "-t", ports, "-u", ports, "--",
			"sh", "-c", l.server()))
		if err == nil {
			pid, err = find("iperf3", user.UID)
		}
		return func() { stop(); fix() }, err
	}}
}

// slirp runs slirp4netns on a namespace of ours.
func (l *netLab) slirp(port int) way {
	pid := 0
	return way{name: "slirp4netns", port: port, inside: func(args ...string) *exec.Cmd {
		return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(pid), "-n"}, args...)...)
	}, start: func(mtu int) (func(), error) {
		server := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up; "+l.server())
		server.Env = os.Environ()
		stop, err := l.started(server)
		if err != nil {
			return nil, err
		}
		pid = server.Process.Pid
		sock := filepath.Dir(l.host) + "/slirp"
		_ = os.Remove(sock)
		time.Sleep(300 * time.Millisecond) // unshare
		stop2, err := l.started(l.in(l.host, nil, nil, "slirp4netns", "--configure", "--mtu="+strconv.Itoa(mtu), "--api-socket", sock, strconv.Itoa(pid), "tap0"))
		if err == nil {
			for i, inner := range []int{netPort, netRR} {
				for _, proto := range []string{"tcp", "udp"} {
					if err = slirpForward(sock, proto, port+i, inner); err != nil {
						break
					}
				}
			}
		}
		return func() { stop2(); stop() }, err
	}}
}

func slirpForward(sock, proto string, port, inner int) error {
	var c net.Conn
	var err error
	for range 50 {
		if c, err = net.Dial("unix", sock); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, `{"execute":"add_hostfwd","arguments":{"proto":%q,"host_addr":"0.0.0.0","host_port":%d,"guest_port":%d}}`, proto, port, inner); err != nil {
		return err
	}
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.CloseWrite() // the answer says what became of it
	}
	answer, err := io.ReadAll(c)
	if err == nil && strings.Contains(string(answer), "error") {
		err = fmt.Errorf("slirp4netns: %s", answer)
	}
	return err
}

// tunForAll opens /dev/net/tun for pasta, where only root may use it.
func tunForAll() (back func()) {
	fi, err := os.Stat("/dev/net/tun")
	if err != nil || fi.Mode().Perm()&0o006 == 0o006 {
		return func() {}
	}
	_ = os.Chmod("/dev/net/tun", 0o666)
	return func() { _ = os.Chmod("/dev/net/tun", fi.Mode().Perm()) }
}

// find waits for a user's process of that name and returns its number.
func find(name string, uid int) (int, error) {
	for range 100 {
		out, _ := output("pgrep", "-n", "-u", strconv.Itoa(uid), "-x", name) // not there yet
		if pid, err := strconv.Atoi(out); err == nil {
			return pid, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 0, fmt.Errorf("%s does not start", name)
}

// measure prints a table of one MTU, way by way.
func (l *netLab) measure(ctx context.Context, ways []way, mtu int, rates map[string]float64) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "MTU %d\tin 1\tin 8\tout 1\tout 8\tudp in\tudp out\tcpu in\tcpu out\trr in\trr out\t\n", mtu)
	for i := range ways {
		y := &ways[i]
		stop, err := y.start(mtu)
		if err == nil {
			err = l.row(ctx, w, y, mtu, rates)
		}
		if stop != nil {
			stop()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if strings.HasPrefix(y.name, "isle") {
				return fmt.Errorf("%s: %w", y.name, err)
			}
			fmt.Fprintf(w, "%s\tnot measured: %v\t\n", y.name, err)
		}
	}
	_ = w.Flush() // into memory
	l.b.report.printf("%sGbit/s; cpu: ms of the whole machine for a Gbit, one stream; rr: requests answered in a second\n", b.String())
	return nil
}

func (l *netLab) row(ctx context.Context, w io.Writer, y *way, mtu int, rates map[string]float64) error {
	fmt.Fprintf(w, "%s", y.name)
	var cpus []float64
	to, port := netHost, y.port
	if port == 0 { // veth: nothing is published
		to, port = "10.97.0.2", netPort
	}
	for _, m := range []struct {
		dir  string
		args []string
		key  string
	}{
		{"in", nil, "1"},
		{"in", []string{"-P", "8"}, "8"},
		{"out", nil, "1"},
		{"out", []string{"-P", "8"}, "8"},
		{"in", []string{"-u", "-b", "0", "-l", "1400"}, "udp"},
		{"out", []string{"-u", "-b", "0", "-l", "1400"}, "udp"},
	} {
		seconds := 1
		if l.b.full {
			seconds = 5
		}
		args := append([]string{"timeout", "30", "iperf3", "-J", "-t", strconv.Itoa(seconds)}, m.args...)
		var cmd *exec.Cmd
		if m.dir == "in" {
			cmd = l.in(l.peer, nil, nil, append(args, "-c", to, "-p", strconv.Itoa(port))...)
		} else {
			cmd = y.inside(append(args, "-c", netPeer, "-p", strconv.Itoa(netPort))...)
		}
		rate, cpu, err := iperf(ctx, cmd)
		if err != nil {
			if m.key == "udp" {
				fmt.Fprint(w, "\t-")
				continue
			}
			return err
		}
		rates[fmt.Sprintf("%s %s %d %s", y.name, m.dir, mtu, m.key)] = rate
		fmt.Fprintf(w, "\t%.2f", rate)
		if m.key == "1" {
			cpus = append(cpus, cpu)
		}
	}
	for _, c := range cpus {
		fmt.Fprintf(w, "\t%.0f", c)
	}
	rr := port + 1
	for _, cmd := range []*exec.Cmd{
		l.in(l.peer, nil, nil, "env", varRR+"="+net.JoinHostPort(to, strconv.Itoa(rr)), l.exe),
		y.inside("/usr/bin/env", varRR+"="+net.JoinHostPort(netPeer, strconv.Itoa(netRR)), l.exe),
	} {
		out, err := outputOf(cmd)
		if err != nil {
			if strings.HasPrefix(y.name, "isle") {
				return err
			}
			out = "-"
		}
		fmt.Fprintf(w, "\t%s", out)
	}
	fmt.Fprintln(w, "\t")
	return nil
}

// iperf runs an iperf3 client until its server is there, and returns Gbit/s and the
// machine's busy time for each Gbit.
func iperf(ctx context.Context, cmd *exec.Cmd) (rate, cpu float64, err error) {
	argv, env, dir := cmd.Args, cmd.Env, cmd.Dir
	for range 20 {
		c := exec.CommandContext(ctx, argv[0], argv[1:]...)
		c.Env, c.Dir = env, dir
		before := busy()
		var out []byte
		if out, err = c.Output(); err != nil {
			err = fmt.Errorf("%s: %w: %.300s", strings.Join(argv, " "), err, out)
			time.Sleep(200 * time.Millisecond)
			continue
		}
		took := busy() - before
		var r struct {
			End struct {
				Received, Sum struct {
					Bits  float64 `json:"bits_per_second"`
					Bytes float64 `json:"bytes"`
					Lost  float64 `json:"lost_percent"`
				}
			}
		}
		// iperf3 names the fields sum_received and sum.
		text := strings.NewReplacer(`"sum_received"`, `"Received"`, `"sum"`, `"Sum"`).Replace(string(out))
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return 0, 0, err
		}
		s := r.End.Received
		if s.Bits == 0 { // UDP: what was sent, less what was lost
			s = r.End.Sum
			s.Bits *= 1 - s.Lost/100
		}
		return s.Bits / 1e9, took / max(s.Bytes*8/1e9, 0.001), nil
	}
	return 0, 0, err
}

// busy is the time in ms that the machine's processors have worked.
func busy() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(data[:strings.IndexByte(string(data), '\n')]))
	sum := 0.0
	for i := 1; i < len(f) && i <= 8; i++ {
		if i == 4 || i == 5 { // idle, waiting for a disk
			continue
		}
		n, _ := strconv.ParseFloat(f[i], 64) // the kernel's own numbers
		sum += n
	}
	return sum * 10 // USER_HZ is 100 on all machines of ours
}

// requestResponse is the benchmark's other life: one byte there, one byte back.
func requestResponse(what string) error {
	if what == "server" {
		ln, err := net.Listen("tcp", fmt.Sprint(":", netRR))
		if err != nil {
			return err
		}
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			go func() {
				_, _ = io.Copy(c, c) // until the client has gone
				_ = c.Close()
			}()
		}
	}
	c, err := net.DialTimeout("tcp", what, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var b [1]byte
	n := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); n++ {
		if _, err := c.Write(b[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return err
		}
	}
	fmt.Println(n)
	return nil
}
