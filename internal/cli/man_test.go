package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

// TestManPages compares docs/man with the table of commands; -update writes it.
func TestManPages(t *testing.T) {
	testenv.Need(t, testenv.Source)
	const dir = "../../docs/man"
	pages := map[string]string{"isle.1": mainPage()}
	table := commands()
	for i := range table {
		if cmd := &table[i]; !strings.HasPrefix(cmd.paths[0], "__") {
			pages[manName(cmd)+".1"] = commandPage(cmd)
		}
	}
	if *update {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range pages {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	have, err := filepath.Glob(dir + "/*.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range have {
		want, ok := pages[filepath.Base(f)]
		if !ok {
			t.Errorf("%s: no such command", f)
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != want {
			t.Errorf("%s: not what the commands say; go test ./internal/cli -run Man -update", f)
		}
		delete(pages, filepath.Base(f))
	}
	for name := range pages {
		t.Errorf("%s/%s: missing", dir, name)
	}
}

// manName is the name of a command's page, as Docker calls them: isle-network-ls.
func manName(cmd *command) string { return "isle-" + strings.ReplaceAll(cmd.paths[0], " ", "-") }

func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	var out []string
	for l := range strings.SplitSeq(s, "\n") {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			l = `\&` + l
		}
		out = append(out, l)
	}
	return strings.Join(out, "\n.br\n")
}

func head(b *strings.Builder, name, short string) {
	fmt.Fprintf(b, ".\\\" Made from the table of commands; do not edit.\n.TH %s 1 \"\" isle \"User Commands\"\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), roff(name), roff(short))
}

func manFlags(b *strings.Builder, flags []flag) {
	for _, f := range sortedFlags(flags) {
		b.WriteString(".TP\n")
		if f.short != 0 {
			fmt.Fprintf(b, "\\fB\\-%c\\fR, ", f.short)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.name))
		if k := f.v.kind(); k != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(k))
		}
		fmt.Fprintf(b, "\n%s", roff(f.help))
		if f.def != "" {
			fmt.Fprintf(b, " (default %s)", roff(f.def))
		}
		b.WriteString(".\n")
	}
}

func commandPage(cmd *command) string {
	c := &call{app: &app{name: "isle"}, cmd: cmd, path: cmd.paths[0]}
	cmd.setup(c)
	var b strings.Builder
	head(&b, manName(cmd), cmd.short)
	b.WriteString(".SH SYNOPSIS\n")
	for _, p := range cmd.paths {
		fmt.Fprintf(&b, ".B isle %s\n%s\n.br\n", roff(p), roff(cmd.usage))
	}
	if len(c.flags) > 0 {
		b.WriteString(".SH OPTIONS\n")
		manFlags(&b, c.flags)
	}
	if cmd.engineExit != 0 || cmd.paths[0] == "exec" {
		b.WriteString(".SH EXIT STATUS\n.TP\n.B 125\na flag is wrong, or the command was not reached.\n.TP\n.B 126\nthe command cannot be executed.\n.TP\n.B 127\nthe command was not found.\n.TP\n.I N\nthe command's own; 128+\\fIn\\fR when signal \\fIn\\fR ended it.\n")
	}
	b.WriteString(".SH SEE ALSO\n.BR isle (1)\n")
	return b.String()
}

func mainPage() string {
	var b strings.Builder
	head(&b, "isle", "containers without a daemon, as root or as yourself")
	b.WriteString(".SH SYNOPSIS\n.B isle\n[OPTIONS] COMMAND\n.SH OPTIONS\n")
	var g globals
	manFlags(&b, g.flags())
	b.WriteString(".SH COMMANDS\n")
	table := commands()
	for _, group := range []string{groupCommon, groupAll} {
		for i := range table {
			if table[i].group == group {
				fmt.Fprintf(&b, ".TP\n.BR isle\\-%s (1)\n%s.\n", roff(table[i].paths[0]), roff(table[i].short))
			}
		}
	}
	for _, g := range groups() {
		fmt.Fprintf(&b, ".SS %s\n", roff(g.short))
		for i := range table {
			if cmd := &table[i]; cmd.group == "" && strings.HasPrefix(cmd.paths[0], g.name+" ") {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s.\n", roff(manName(cmd)), roff(cmd.short))
			}
		}
	}
	b.WriteString(`.SH ENVIRONMENT
.TP
.B ISLE_ROOT
Directory of images, containers and volumes: /var/lib/isle for root, else $XDG_DATA_HOME/isle (~/.local/share/isle).
.TP
.B ISLE_RUNROOT
Directory of sockets and locks: /run/isle for root, else $XDG_RUNTIME_DIR/isle, or /tmp/isle\-UID where there is none.
.TP
.B DOCKER_CONFIG
Directory of config.json with the registries' credentials.
`)
	return b.String()
}
