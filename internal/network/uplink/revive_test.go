package uplink

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/linux/netlink"
)

// TestHelperKilled: the helper is killed (-9) while connections come and go and
// others carry data. What is under way is cut, not left hanging; the ports stay
// the container's; and after the monitor has called another helper all works
// again, datagrams of an old socket too.
func TestHelperKilled(t *testing.T) {
	r := newRig(t)
	r.startProcess()
	b := r.box(container.Config{Name: "web", Publish: []string{"80", "80/udp"}})
	own := hostAddr(false)
	if own == nil {
		t.Skip("this host has no address but the loopback's")
	}
	port := map[string]int{}
	for _, p := range b.a.State.Ports {
		port[p.Proto] = int(p.HostPort)
	}
	out := tellSource(t, nil, own.String()+":0")
	flood := floodServer(t)

	udp, err := net.Dial("udp", net.JoinHostPort(own.String(), strconv.Itoa(port["udp"])))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	askUDP(t, udp)

	// Load: bulk data out of the container, and short connections both ways.
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() { // until it is cut
			c := dialIn(t, b, own.String(), flood)
			if c == nil {
				return
			}
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		})
	}
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = ask(nil, "tcp", own.String(), port["tcp"]) // some fail while the helper is dead
				_, _ = ask(b.ns, "tcp", own.String(), out)
			}
		})
	}
	for range 3 {
		dead := r.helper
		time.Sleep(200 * time.Millisecond) // of load; nothing depends on how much
		if err := dead.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = dead.Wait()
		// The monitor sees it.
		p := []unix.PollFd{{Fd: int32(b.a.Helper().Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 20000); n != 1 || err != nil {
			t.Fatalf("the monitor's connection did not end: %v", err)
		}
		if l, err := net.Listen("tcp", fmt.Sprint(":", port["tcp"])); err == nil {
			_ = l.Close()
			t.Error("the published port was free for somebody else")
		}
		r.startProcess()
		if err := b.a.Revive(); err != nil {
			t.Fatal(err)
		}
		r.sees(nil, "tcp", own.String(), port["tcp"], own.String())
		r.sees(nil, "udp", own.String(), port["udp"], own.String())
		r.sees(b.ns, "tcp", own.String(), out, own.String())
		r.sees(b.ns, "udp", own.String(), out, own.String())
		askUDP(t, udp)
	}
	close(stop)
	load.Wait()
}

// floodServer writes to whoever comes, on the host, until they are gone.
func floodServer(t *testing.T) (port int) {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 64<<10)
				for {
					if _, err := c.Write(buf); err != nil {
						_ = c.Close()
						return
					}
				}
			}()
		}
	}()
	a, _ := ln.Addr().(*net.TCPAddr)
	return a.Port
}

// dialIn connects from a container.
func dialIn(t *testing.T, b *box, host string, port int) (c net.Conn) {
	t.Helper()
	err := netlink.In(b.ns, func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), 10*time.Second)
		return err
	})
	if err != nil {
		t.Errorf("connect: %v", err)
		return nil
	}
	return c
}

// askUDP asks by a socket that is kept.
func askUDP(t *testing.T, c net.Conn) {
	t.Helper()
	var err error
	for range 20 {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err = c.Write([]byte("?")); err != nil {
			continue // the port was closed for a moment
		}
		var line string
		if line, err = bufio.NewReader(c).ReadString('\n'); err == nil && strings.TrimSpace(line) != "" {
			return
		}
	}
	t.Errorf("an old UDP socket: %v", err)
}
