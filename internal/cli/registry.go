package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/linux/tty"
)

// registrar is the part of the engine that the registry commands need.
type registrar interface {
	Push(ctx context.Context, ref string, o engine.PushOptions) ([]engine.Pushed, error)
	Save(ctx context.Context, refs []string, platform string, out *os.File) error
	Login(ctx context.Context, server, user, password string) (engine.Login, error)
	Logout(ctx context.Context, server string) (name string, files []string, err error)
	Search(ctx context.Context, term string, limit int, f engine.Filter) ([]engine.Found, error)
	CreateManifest(ctx context.Context, list string, refs []string, amend, insecure bool) (string, error)
	AnnotateManifest(ctx context.Context, list, ref string, o engine.Annotation) error
	InspectManifest(ctx context.Context, ref string, insecure bool) (*engine.Manifest, error)
	LocalManifest(list string) (*image.ManifestList, error)
	PushManifest(ctx context.Context, list string, purge, insecure bool) (string, error)
	RemoveManifest(ctx context.Context, list string) error
}

var _ registrar = (*engine.Engine)(nil)

func (c *call) registrar() (registrar, error) {
	eng, err := c.engine()
	if err != nil {
		return nil, err
	}
	r, ok := eng.(registrar)
	if !ok {
		return nil, errs.New(errs.Unsupported, "registries: this engine knows none")
	}
	return r, nil
}

func cmdPush(c *call) func() error {
	var o engine.PushOptions
	c.flags = []flag{
		{name: "all-tags", short: 'a', v: (*boolVar)(&o.All), help: "Push all tags of the repository"},
		{name: "disable-content-trust", v: funcVar{"", contentTrust}, help: "Accepted for Docker's sake: images are verified by digest", def: "true"},
		{name: "platform", v: (*stringVar)(&o.Platform), help: "The image must be for this platform (os[/arch[/variant]])"},
		{name: "quiet", short: 'q', v: (*boolVar)(&o.Quiet), help: "Print the image's name only"},
	}
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		ref := c.args[0]
		name, err := image.ParseName(ref)
		if err != nil {
			return err
		}
		if !o.All && !o.Quiet && name.Digest == "" && (ref == name.FamiliarName() || ref == name.Repository()) {
			fmt.Fprintln(c.stdout(), "Using default tag: latest")
			if err := c.flush(); err != nil {
				return err
			}
		}
		o.Progress = c.out
		pushed, err := eng.Push(c.ctx, ref, o)
		if o.Quiet {
			for _, p := range pushed {
				fmt.Fprintln(c.stdout(), visible(p.Name))
			}
		}
		return err
	}
}

func cmdSave(c *call) func() error {
	var output, platform string
	c.flags = []flag{
		{name: "output", short: 'o', v: (*stringVar)(&output), help: "Write to a file, instead of STDOUT"},
		{name: "platform", v: (*stringVar)(&platform), help: "The images must be for this platform (os[/arch[/variant]])"},
	}
	return func() error {
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		return c.archiveTo(output, func(f *os.File) error { return eng.Save(c.ctx, c.args, platform, f) })
	}
}

func cmdLogin(c *call) func() error {
	var user, password string
	stdin := false
	var given *flag
	c.flags = []flag{
		{name: "password", short: 'p', v: (*stringVar)(&password), help: "Password or token; other users see it in the list of processes"},
		{name: "password-stdin", v: (*boolVar)(&stdin), help: "Take the password or token from STDIN"},
		{name: "username", short: 'u', v: (*stringVar)(&user), help: "Username"},
	}
	given = &c.flags[0]
	return func() error {
		server := ""
		if len(c.args) == 1 {
			server = c.args[0]
		}
		switch {
		case given.set && stdin:
			return errs.New(errs.Invalid, "conflicting options: cannot specify both --password and --password-stdin")
		case stdin && user == "":
			return errs.New(errs.Invalid, "the --password-stdin option requires --username to be set")
		case given.set:
			fmt.Fprintln(c.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		}
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		if user == "" && !given.set {
			l, err := eng.Login(c.ctx, server, "", "")
			if err == nil {
				fmt.Fprintf(c.stdout(), "Authenticating with existing credentials... [Username: %s]\n\nLogin Succeeded\n", visible(l.User))
				return nil
			}
			if errs.KindOf(err) != errs.NotFound && errs.KindOf(err) != errs.Denied {
				return err
			}
		}
		if stdin {
			data, err := io.ReadAll(io.LimitReader(c.in, 64<<10))
			if err != nil {
				return err
			}
			password = strings.TrimRight(string(data), "\r\n")
		}
		if user == "" || password == "" && !stdin {
			if !tty.IsTerminal(c.in) {
				return errs.New(errs.Invalid, "Cannot perform an interactive login from a non TTY device")
			}
			if user, password, err = c.askCredential(user, password); err != nil {
				return err
			}
		}
		if password == "" {
			return errs.New(errs.Invalid, "password is empty")
		}
		l, err := eng.Login(c.ctx, server, user, password)
		if err != nil {
			return err
		}
		if l.Plain {
			fmt.Fprintf(c.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", visible(l.File))
		}
		_, err = fmt.Fprintln(c.stdout(), "Login Succeeded")
		return err
	}
}

// askCredential asks on the terminal for what is not given; the password is not
// echoed.
func (c *call) askCredential(user, password string) (string, string, error) {
	in := bufio.NewReader(c.in)
	ask := func(what string) (string, error) {
		fmt.Fprint(c.stdout(), what+": ")
		if err := c.flush(); err != nil {
			return "", err
		}
		line, err := in.ReadString('\n')
		if err != nil && line == "" {
			return "", errs.New(errs.Canceled, "login: no %s given", strings.ToLower(what))
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var err error
	if user == "" {
		if user, err = ask("Username"); err != nil {
			return "", "", err
		}
	}
	if user == "" {
		return "", "", errs.New(errs.Invalid, "username is required")
	}
	if password != "" {
		return user, password, nil
	}
	restore, err := tty.NoEcho(c.in)
	if err != nil {
		return "", "", err
	}
	// An interruption must not leave the terminal without echo.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() {
		var err error
		password, err = ask("Password")
		done <- err
	}()
	select {
	case err = <-done:
		restore()
		fmt.Fprintln(c.stdout())
		return user, password, err
	case s := <-signals:
		restore()
		fmt.Fprintln(c.err)
		if s == unix.SIGINT {
			return "", "", exitStatus(130)
		}
		return "", "", exitStatus(143)
	}
}

func cmdLogout(c *call) func() error {
	return func() error {
		server := ""
		if len(c.args) == 1 {
			server = c.args[0]
		}
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		name, _, err := eng.Logout(c.ctx, server)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout(), "Removing login credentials for "+visible(name))
		return err
	}
}

func cmdSearch(c *call) func() error {
	var o struct {
		filter  engine.Filter
		format  string
		limit   int
		noTrunc bool
	}
	c.flags = []flag{
		{name: "filter", short: 'f', v: (*filterVar)(&o.filter), help: "Show those only that match (is-official=BOOL, stars=N)"},
		{name: "format", v: (*stringVar)(&o.format), help: formatHelp},
		{name: "limit", v: (*intVar)(&o.limit), help: "Most results (25 if not said)"},
		{name: "no-trunc", v: (*boolVar)(&o.noTrunc), help: "Do not shorten the output"},
	}
	return func() error {
		if o.limit == 0 {
			o.limit = 25
		}
		if o.limit < 1 || o.limit > 100 {
			return errs.New(errs.Invalid, "limit %d is outside the range of [1, 100]", o.limit)
		}
		eng, err := c.registrar()
		if err != nil {
			return err
		}
		found, err := eng.Search(c.ctx, c.args[0], o.limit, o.filter)
		if err != nil {
			return err
		}
		asJSON := o.format == "json" || strings.Contains(o.format, "json .")
		l := &list{
			text:    o.format,
			columns: []string{"Name", "Description", "StarCount", "IsOfficial"},
			headings: map[string]string{
				"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED",
			},
		}
		return l.print(c.app, len(found), func(i int) row { return &foundRow{&found[i], !o.noTrunc, asJSON} })
	}
}

// foundRow is a line of search.
type foundRow struct {
	f     *engine.Found
	trunc bool
	json  bool // Docker writes true and false there, and [OK] or nothing elsewhere
}

func (r *foundRow) keys() []string {
	return []string{"Description", "IsOfficial", "Name", "StarCount"}
}

// Field implements format.Object.
func (r *foundRow) Field(name string, args []any) (any, bool) {
	if len(args) > 0 {
		return nil, false
	}
	switch name {
	case "Name":
		return visible(r.f.Name), true
	case "Description":
		s := visible(strings.NewReplacer("\n", " ", "\r", " ").Replace(r.f.Description))
		if r.trunc {
			s = ellipsis(s, 45)
		}
		return s, true
	case "StarCount":
		return strconv.Itoa(r.f.Stars), true
	case "IsOfficial":
		return r.mark(r.f.Official), true
	case "IsAutomated":
		return r.mark(r.f.Automated), true
	}
	return nil, false
}

func (r *foundRow) mark(b bool) string {
	switch {
	case r.json:
		return strconv.FormatBool(b)
	case b:
		return "[OK]"
	}
	return ""
}
