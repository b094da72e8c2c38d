package page

import (
	_ "embed" // the style sheet
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/explain/view"
)

//go:embed page.css
var css string

// WriteHTML writes v as one page that needs nothing else: no script, no font, no
// image of anybody's. escape makes control characters visible, as on a terminal.
func WriteHTML(w io.Writer, v *view.View, section string, escape func(string) string) error {
	h := &htmlPage{escape: escape}
	h.f("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">")
	// Should anything get past the escapes, the browser runs and loads nothing.
	h.f("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">")
	h.f("<title>%s – isle explain</title><style>%s</style></head><body><main>", h.e(v.Name), css)
	h.head(v)
	if section == "" {
		h.picture(v)
	}
	for _, s := range Sections(v) {
		if section == "" || section == s.Name {
			h.section(&s)
		}
	}
	h.f("<footer>Read from the kernel at %s. The command under each fact shows the same without isle.</footer>", v.Taken.UTC().Format("2006-01-02 15:04:05 UTC"))
	h.f("</main></body></html>\n")
	_, err := io.WriteString(w, h.b.String())
	return err
}

type htmlPage struct {
	b      strings.Builder
	escape func(string) string
}

// f writes markup of ours; what is not ours comes through e.
func (h *htmlPage) f(format string, args ...any) { fmt.Fprintf(&h.b, format, args...) }

// e makes text harmless.
func (h *htmlPage) e(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(h.escape(s))
}

func (h *htmlPage) head(v *view.View) {
	class := ""
	switch {
	case v.Cgroup != nil && v.Cgroup.Frozen:
		class = " ice"
	case !v.Live:
		class = " off"
	}
	h.f("<h1>%s<span class=\"tag%s\">%s</span></h1>", h.e(v.Name), class, h.e(string(v.Status)))
	h.f("<div class=\"sub\"><span class=\"mono\">%s</span> from image <b>%s</b> · %s</div>", h.e(clip(strings.Join(v.Command, " "), 100)), h.e(v.Image), h.e(v.ID[:min(12, len(v.ID))]))
	if len(v.Differences) > 0 {
		h.f("<div class=\"note\"><b>Not as asked:</b> ")
		for i, d := range v.Differences {
			if i > 0 {
				h.f("; ")
			}
			h.f("%s is %s, asked for was %s", h.e(d.What), h.e(d.Is), h.e(d.Asked))
		}
		h.f("</div>")
	}
}

func (h *htmlPage) picture(v *view.View) {
	if !v.Live {
		h.f("<div class=\"card\"><h3>Layers</h3>")
		h.stack(v)
		h.f("</div>")
		return
	}
	h.f("<div class=\"picture\"><div class=\"card\"><h3>Who can see what</h3>")
	h.boxes(v)
	h.f("</div><div class=\"card\"><h3>Use and limits</h3>")
	h.gauges(v)
	h.f("<h3 style=\"margin-top:22px\">Layers</h3>")
	h.stack(v)
	h.f("</div></div>")
	if v.Network != nil {
		h.f("<div class=\"card\"><h3>From process to wire</h3><div class=\"way\">")
		for _, hop := range v.Network.Hops {
			class := "hop"
			if hop.Where == "inside" {
				class = "hop inside"
			}
			h.f("<div class=\"%s\"><small>%s</small>%s</div>", class, h.e(hop.Where), h.e(hop.What))
		}
		h.f("</div></div>")
	}
}

// boxes nests the namespaces: what is private is a wall, what is shared is open.
func (h *htmlPage) boxes(v *view.View) {
	name := ""
	if v.Host != nil {
		name = v.Host.Host
	}
	h.f("<div class=\"machine\"><div class=\"cap\">this machine%s</div>", h.e(cond(name != "", ": "+name, "")))
	open := 0
	for _, kind := range [...]string{"user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"} {
		i := slices.IndexFunc(v.Namespaces, func(n view.Namespace) bool { return n.Kind == kind })
		if i < 0 {
			continue
		}
		n := v.Namespaces[i]
		class, text := "box", "hides "+n.Hides
		if n.Inode == n.Host {
			class, text = "box open", "shared with the host"
		} else if len(n.With) > 0 {
			class, text = "box open", "shared with "+strings.Join(n.With, ", ")
		}
		h.f("<div class=\"%s\"><div class=\"cap\"><b>%s</b><span>%s</span></div>", class, h.e(kind), h.e(text))
		open++
	}
	for i, p := range v.Processes {
		if i == 6 {
			h.f("<div class=\"legend\">and %d more processes</div>", len(v.Processes)-i)
			break
		}
		h.f("<div class=\"proc\"><span class=\"mono\">%s</span><br><b>pid %d</b> as user %s inside · pid %d as uid %s outside</div>",
			h.e(clip(strings.Join(p.Command, " "), 80)), p.Inside, id(p.User.Inside), p.Host, id(p.User.Host))
	}
	h.b.WriteString(strings.Repeat("</div>", open) + "</div>")
	h.f("<div class=\"legend\">A solid wall is a namespace of its own. A dashed one is open: shared with others.</div>")
}

func cond(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func (h *htmlPage) gauges(v *view.View) {
	if v.Cgroup == nil {
		return
	}
	for _, l := range v.Cgroup.Limits {
		switch l.Unit {
		case "bytes":
			h.gauge(l.Name, l.Now, l.Max, l.Peak, size)
		case "tasks":
			h.gauge(l.Name, l.Now, l.Max, l.Peak, func(n int64) string { return strconv.FormatInt(n, 10) })
		case "millicpus":
			text := "no limit"
			if l.Max >= 0 {
				text = fmt.Sprintf("at most %g CPUs", float64(l.Max)/1000)
			}
			if c := &v.Cgroup.CPU; c.Periods > 0 {
				text += fmt.Sprintf(", held back in %d of %d periods", c.Throttled, c.Periods)
				h.bar(l.Name, float64(c.Throttled)/float64(c.Periods), 0, text, false)
			} else {
				h.bar(l.Name, 0, 0, text, l.Max < 0)
			}
		}
	}
	for _, p := range v.Cgroup.Pressure {
		h.bar(p.Resource+" wait", p.Some/100, 0, fmt.Sprintf("%.1f%% of the last 10 s something waited", p.Some), false)
	}
}

func (h *htmlPage) gauge(name string, now, limit, peak int64, show func(int64) string) {
	text := show(max(now, 0))
	part, mark := 0.0, 0.0
	if limit > 0 {
		part, mark = float64(now)/float64(limit), float64(peak)/float64(limit)
		text += " of " + show(limit)
	} else {
		text += ", no limit"
	}
	if peak > 0 {
		text += ", peak " + show(peak)
	}
	h.bar(name, part, mark, text, limit <= 0)
}

func (h *htmlPage) bar(name string, part, mark float64, text string, free bool) {
	part = min(max(part, 0), 1)
	class := ""
	if part > 0.85 {
		class = " class=\"hot\""
	}
	h.f("<div class=\"gauge\"><span>%s</span><div class=\"bar%s\">", h.e(name), cond(free, " free", ""))
	if !free {
		h.f("<i%s style=\"width:%.1f%%\"></i>", class, part*100)
	}
	if mark > 0 {
		h.f("<u style=\"left:calc(%.1f%% - 2px)\"></u>", min(mark, 1)*100)
	}
	h.f("</div><span class=\"t\">%s</span></div>", h.e(text))
}

// stack draws the layers, the writable one on top.
func (h *htmlPage) stack(v *view.View) {
	r := v.Root
	if r == nil {
		return
	}
	h.f("<div class=\"layer up\"><span class=\"n\">%s%s</span>%s<div class=\"lock\">%d files</div></div>",
		cond(r.More, "≥ ", ""), h.e(size(r.Written)), cond(r.ReadOnly, "its own, but the root is mounted read-only", "what it writes"), r.Files)
	for i, l := range r.Layers {
		if i == 24 {
			h.f("<div class=\"legend\">and %d more layers</div>", len(r.Layers)-i)
			break
		}
		made := l.CreatedBy
		if made == "" {
			made = "(the image does not say what made it)"
		}
		h.f("<div class=\"layer\"><span class=\"n\">%s</span><span class=\"mono\">%s</span></div>", h.e(size(l.Bytes)), h.e(clip(made, 130)))
	}
	h.f("<div class=\"legend\">The image's layers are read-only and shared by all its containers. A file that is changed is first copied up.</div>")
}

func (h *htmlPage) section(s *Section) {
	host := slices.ContainsFunc(s.Rows, func(r Row) bool { return r.Host != "" })
	h.f("<section class=\"card\" id=\"%s\"><h2>%s</h2><div class=\"sub\">%s</div><table>", s.Name, h.e(s.Title), h.e(s.Intro))
	if host && s.Name != "differences" {
		h.f("<tr><th class=\"l\"></th><th>inside</th><th>on the host</th></tr>")
	}
	for _, r := range s.Rows {
		h.f("<tr%s><td class=\"l\">%s</td><td>%s", cond(r.Differs, " class=\"warn\"", ""), h.e(r.Label), h.e(r.Inside))
		if r.Command != "" {
			h.f("<code class=\"cmd\">$ %s</code>", h.e(r.Command))
		}
		h.f("</td>")
		if host {
			h.f("<td>%s</td>", h.e(r.Host))
		}
		h.f("</tr>")
	}
	h.f("</table></section>")
}
