package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/engine"
)

func cmdHistory(c *call) func() error {
	o := struct {
		format                string
		human, noTrunc, quiet bool
		platform              string
	}{human: true}
	c.flags = []flag{
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "human", short: 'H', v: (*boolVar)(&o.human), help: "Show sizes and dates for people", def: "true"},
		{name: "no-trunc", v: (*boolVar)(&o.noTrunc), help: "Do not shorten the output"},
		{name: "platform", v: (*stringVar)(&o.platform), help: "The image must be for this platform (os[/arch[/variant]])"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.quiet), help: "Show image IDs only"},
	}
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		if o.platform != "" {
			img, err := eng.InspectImage(c.ctx, c.args[0])
			if err == nil {
				err = matchPlatform(img, c.args[0], o.platform)
			}
			if err != nil {
				return err
			}
		}
		steps, err := eng.History(c.ctx, c.args[0])
		if err != nil {
			return err
		}
		rows := make([]historyRow, len(steps))
		for i := range steps {
			rows[i] = historyRow{&steps[i], o.human, !o.noTrunc, time.Now()}
		}
		if o.quiet {
			for i := range rows {
				fmt.Fprintln(c.stdout(), rows[i].id())
			}
			return nil
		}
		l := &list{
			text:    o.format,
			columns: []string{"ID", "CreatedSince", "CreatedBy", "Size", "Comment"},
			headings: map[string]string{
				"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
			},
		}
		if !o.human {
			l.columns[1] = "CreatedAt"
		}
		return l.print(c.app, len(rows), func(i int) row { return &rows[i] })
	}
}

// historyRow is one step of an image's history.
type historyRow struct {
	*engine.Step
	human, trunc bool
	now          time.Time
}

func (r *historyRow) id() string {
	if r.trunc {
		return shortID(r.ID)
	}
	return r.ID
}

func (r *historyRow) keys() []string {
	return []string{"Comment", "CreatedAt", "CreatedBy", "CreatedSince", "ID", "Size"}
}

// Field implements format.Object.
func (r *historyRow) Field(name string, args []any) (any, bool) {
	if len(args) > 0 {
		return nil, false
	}
	switch name {
	case "ID":
		return r.id(), true
	case "CreatedAt":
		return r.Created.Format(time.RFC3339), true
	case "CreatedSince":
		if r.Created.IsZero() {
			return "N/A", true
		}
		return humanDuration(r.now.Sub(r.Created)) + " ago", true
	case "CreatedBy":
		by := strings.ReplaceAll(r.CreatedBy, "\t", " ")
		if r.trunc {
			by = ellipsis(by, 45)
		}
		return oneLine(by), true
	case "Size":
		if !r.human {
			return fmt.Sprint(r.Size), true
		}
		return humanSize(r.Size, 3), true
	case "Comment":
		return oneLine(r.Comment), true
	}
	return nil, false
}
