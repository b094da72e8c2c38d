package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// stateJSON is what state and list print.
type stateJSON struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func (ct *container) json() stateJSON {
	s := stateJSON{
		OCIVersion: ct.OCIVersion, ID: ct.ID, Pid: ct.Pid, Status: ct.status(), Bundle: ct.Bundle,
		Rootfs: ct.Rootfs, Created: ct.Created, Annotations: ct.Annotations,
	}
	if s.Status == stopped {
		s.Pid = 0
	}
	return s
}

// state prints the state of a container.
func (c *call) state() error {
	ct, err := load(c.root, c.args[0])
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(ct.json(), "", "  ")
	if err != nil {
		return err
	}
	_, err = c.out.Write(b)
	return err
}

// list prints the containers of the root.
func (c *call) list() error {
	all, err := c.containers()
	if err != nil {
		return err
	}
	if c.flags.on("quiet") {
		for _, s := range all {
			fmt.Fprintln(c.out, s.ID)
		}
		return nil
	}
	switch c.flags.str("format") {
	case "", "table":
		w := tabwriter.NewWriter(c.out, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	case "json":
		return json.NewEncoder(c.out).Encode(all)
	}
	return errors.New("invalid format option")
}

func (c *call) containers() ([]stateJSON, error) {
	entries, err := os.ReadDir(c.root)
	if errors.Is(err, os.ErrNotExist) && !c.global.set("root") {
		return nil, nil // nothing was created yet
	}
	if err != nil {
		return nil, err
	}
	var all []stateJSON
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		ct, err := load(c.root, e.Name())
		if err != nil {
			fmt.Fprintf(c.err, "load container %s: %v\n", e.Name(), err)
			continue
		}
		s := ct.json()
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				s.Owner = userName(st.Uid)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// userName is the name of a user of this machine.
func userName(uid uint32) string {
	data, err := os.ReadFile("/etc/passwd")
	if err == nil {
		want := strconv.Itoa(int(uid))
		for line := range strings.Lines(string(data)) {
			if f := strings.Split(line, ":"); len(f) > 2 && f[2] == want {
				return f[0]
			}
		}
	}
	return "#" + strconv.Itoa(int(uid))
}

// ps prints the container's processes, with what ps(1) says of them.
func (c *call) ps() error {
	ct, err := load(c.root, c.args[0])
	if err != nil {
		return err
	}
	pids, err := ct.group().Procs()
	if err != nil {
		return fmt.Errorf("unable to get all container pids: %w", err)
	}
	switch c.flags.str("format") {
	case "", "table":
	case "json":
		return json.NewEncoder(c.out).Encode(pids)
	default:
		return errors.New("invalid format option")
	}
	args := c.args[1:]
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := exec.Command("ps", args...).CombinedOutput() //nolint:noctx // ends by itself
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	title, rest, _ := strings.Cut(string(out), "\n")
	column := slices.Index(strings.Fields(title), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Fprintln(c.out, title)
	for line := range strings.Lines(rest) {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		pid, err := strconv.Atoi(f[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprint(c.out, line)
		}
	}
	return nil
}
