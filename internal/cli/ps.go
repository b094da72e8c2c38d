package cli

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/spec"
)

func cmdPs(c *call) func() error {
	o := struct {
		engine.ListOptions
		noTrunc, quiet, latest bool
		format                 string
	}{ListOptions: engine.ListOptions{Last: -1}}
	c.flags = []flag{
		{name: "all", short: 'a', v: (*boolVar)(&o.All), help: "Show all containers (running ones only by default)"},
		{name: "filter", short: 'f', v: (*filterVar)(&o.Filter), help: "Show those that match (KEY=VALUE)"},
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "last", short: 'n', v: (*intVar)(&o.Last), help: "Show the n last created containers, in any state", def: "-1"},
		{name: "latest", short: 'l', v: (*boolVar)(&o.latest), help: "Show the last created container, in any state"},
		{name: "no-trunc", v: (*boolVar)(&o.noTrunc), help: "Do not shorten the output"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Show container IDs only"},
		{name: "size", short: 's', v: (*boolVar)(&o.Size), help: "Show how much disk they use"},
	}
	return func() error {
		if o.latest {
			o.Last = 1
		}
		o.Last = max(o.Last, 0)
		size := o.Size
		if wants(o.format, "Size") && !o.quiet {
			o.Size = true
		}
		// A thousand records are a few megabytes: collecting garbage meanwhile would
		// take longer than reading them.
		debug.SetGCPercent(800)
		eng, err := c.engine()
		if err != nil {
			return err
		}
		all, err := eng.List(c.ctx, o.ListOptions)
		if err != nil {
			return err
		}
		if o.quiet {
			if o.format != "" {
				fmt.Fprintln(c.err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
			}
			for i := range all {
				id := all[i].ID
				if !o.noTrunc {
					id = shortID(id)
				}
				fmt.Fprintln(c.stdout(), id)
			}
			return nil
		}
		l := containerList(o.format, size)
		now := time.Now()
		return l.print(c.app, len(all), func(i int) row { return &psRow{&all[i], !o.noTrunc, now} })
	}
}

const formatHelp = `Print with a template:
'table'           a table (default)
'table TEMPLATE'  a table of the template's columns
'json'            one JSON object a line
'TEMPLATE'        one line each`

func containerList(text string, size bool) *list {
	l := &list{
		text:    text,
		columns: []string{"ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"},
		headings: map[string]string{
			"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "CreatedAt": "CREATED AT", "Status": "STATUS", "State": "STATE",
			"Ports": "PORTS", "Names": "NAMES", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
		},
	}
	if size {
		l.columns = append(l.columns, "Size")
	}
	return l
}

// psRow is one container in a list.
type psRow struct {
	*engine.Container
	trunc bool
	now   time.Time
}

func (r *psRow) keys() []string {
	return []string{"Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Names", "Networks", "Platform", "Ports", "RunningFor", "Size", "State", "Status"}
}

// Field implements format.Object.
func (r *psRow) Field(name string, args []any) (any, bool) {
	if name == "Label" && len(args) == 1 {
		return visible(r.Labels()[fmt.Sprint(args[0])]), true
	}
	if len(args) > 0 {
		return nil, false
	}
	switch name {
	case "ID":
		if r.trunc {
			return shortID(r.Record.ID), true
		}
		return r.Record.ID, true
	case "Names":
		return visible(r.Config.Name), true
	case "Image":
		return visible(r.image()), true
	case "Command":
		s := joinCommand(spec.Args(&r.Config, &r.Record.Image.Config))
		if r.trunc {
			s = ellipsis(s, 20)
		}
		return strconv.Quote(s), true
	case "CreatedAt":
		return r.Created.Local().Truncate(time.Second).Format("2006-01-02 15:04:05 -0700 MST"), true
	case "RunningFor":
		return ago(r.Created, r.now), true
	case "Status":
		return visible(statusText(&r.Container.State, r.now)), true
	case "State":
		return string(r.Container.State.Status), true
	case "Ports":
		return portsText(r.ports()), true
	case "Size":
		s := humanSize(r.SizeRw, 3)
		if r.SizeRootFs > 0 {
			s += " (virtual " + humanSize(r.SizeRootFs, 3) + ")"
		}
		return s, true
	case "Labels":
		return visible(labelsText(r.Labels())), true
	case "Mounts":
		return r.mounts(), true
	case "LocalVolumes":
		n := 0
		for _, m := range r.Config.Mounts {
			if m.Type == "volume" && (m.VolumeDriver == "" || m.VolumeDriver == "local") {
				n++
			}
		}
		return strconv.Itoa(n), true
	case "Networks":
		return visible(strings.Join(networkNames(&r.Config), ",")), true
	case "Platform":
		return nil, true
	}
	return nil, false
}

// image is the name as it was typed; an id is shortened.
func (r *psRow) image() string {
	img := r.Config.Image
	switch {
	case img == "":
		return "<no image>"
	case !r.trunc:
		return img
	case strings.HasPrefix(img, "sha256:"), img == strings.TrimPrefix(r.Record.Image.ID, "sha256:"):
		return shortID(img)
	}
	if name, _, ok := strings.Cut(img, "@sha256:"); ok {
		return name
	}
	return img
}

// joinCommand shows arguments with blanks in quotes, as Docker does.
func joinCommand(argv []string) string {
	var b strings.Builder
	for i, a := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i > 0 && strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}

// statusText is a state in words: "Up 5 minutes (healthy)".
func statusText(s *container.State, now time.Time) string {
	switch s.Status {
	case container.Running:
		up := "Up " + humanDuration(now.Sub(s.StartedAt))
		if s.Health != nil {
			if s.Health.Status == "starting" {
				return up + " (health: starting)"
			}
			return up + " (" + s.Health.Status + ")"
		}
		return up
	case container.Paused:
		return "Up " + humanDuration(now.Sub(s.StartedAt)) + " (Paused)"
	case container.Restarting:
		return "Restarting (" + strconv.Itoa(s.ExitCode) + ") " + ago(s.FinishedAt, now)
	case container.Removing:
		return "Removal In Progress"
	case container.Dead:
		return "Dead"
	case container.Created:
		return "Created" + endText(s)
	case container.Exited:
		if !s.FinishedAt.IsZero() {
			return "Exited (" + strconv.Itoa(s.ExitCode) + ") " + ago(s.FinishedAt, now) + endText(s)
		}
		return "Exited (" + strconv.Itoa(s.ExitCode) + ")"
	}
	return string(s.Status)
}

// endText is what a list has to say of an end that the exit code does not tell.
func endText(s *container.State) string {
	if w := s.Short(); w != "" {
		return ": " + w
	}
	return ""
}

func labelsText(labels map[string]string) string {
	all := make([]string, 0, len(labels))
	for k, v := range labels {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

func (r *psRow) mounts() string {
	var all []string
	for _, m := range r.Config.Mounts {
		if m.Type == "tmpfs" {
			continue
		}
		name := m.Source
		if m.Type == "volume" {
			name = r.Volumes[m.Target]
		}
		if r.trunc {
			name = ellipsis(name, 15)
		}
		all = append(all, visible(name))
	}
	return strings.Join(all, ",")
}

// networkNames are the networks that a container is connected to, in Docker's names.
func networkNames(c *container.Config) []string {
	var names []string
	switch {
	case c.Network == "", c.Network == "default", c.Network == "private":
		names = []string{"bridge"}
	case strings.HasPrefix(c.Network, "container:"), strings.HasPrefix(c.Network, "ns:"):
	default:
		names = []string{c.Network}
	}
	for _, n := range c.MoreNetworks {
		names = append(names, n.Network)
	}
	return names
}
